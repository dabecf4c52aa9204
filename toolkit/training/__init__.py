"""The training loop and its parts: arguments, sampler, loader, processes, checkpoints, optimizers, evaluation."""
