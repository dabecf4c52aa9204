"""The training loop, on Accelerate: everything that torch trains goes through `train`.

The samples of a step, their masks and dropout depend only on the seed and the number of the step (dropout also on the
process). Therefore a run can be repeated, resumed within seconds and, apart from dropout, divided among any number of
processes with the same result.
"""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from accelerate.utils import DistributedType, send_to_device
from transformers.modeling_layers import GradientCheckpointingLayer

from toolkit.errors import InputError, Interrupted
from toolkit.training.arguments import TrainingArguments
from toolkit.training.checkpoints import TrainingState, load_recurrent_state, save_checkpoint, save_model
from toolkit.training.distributed import agree, make_accelerator, sum_over_processes
from toolkit.training.inputs import Evaluation, TrainingData, TrainingOutput
from toolkit.training.loader import StreamedDataset, load_batches
from toolkit.training.log import TrainingLog
from toolkit.training.optimizers import OptionsByName, same_options
from toolkit.training.sampler import BatchSampler, SampleKey, seed_torch, split_batch
from toolkit.training.schedule import Budget, learning_rate_factor
from toolkit.training.setup import configure_model, find_checkpoint, prepare
from toolkit.training.signals import Signals, failures_explained

SAVE_SECONDS = 600  # between checkpoints, without `--save_steps`


@dataclass(frozen=True)
class TrainingResult:
    """What a run took."""

    num_steps: int
    seconds: float  # of the whole run, also before it was resumed
    throughput: float  # items per second, including evaluations and checkpoints
    deterministic: bool  # whether the same command gives the same weights


def train(
    model,
    data: TrainingData,
    arguments: TrainingArguments,
    output: TrainingOutput | None = None,
    evaluation: Evaluation | None = None,
    options: OptionsByName = same_options,
) -> TrainingResult:
    """Train a model.

    Args:
        model: A `PreTrainedModel` that returns a `loss`, the mean over the `num_targets` of the batch.
        data: What it is trained on.
        arguments: How long, with which optimizer, precision, checkpoints and logging.
        output: Where to save it; None writes no files.
        evaluation: What to measure, to save the best weights; None saves the last ones.
        options: The options of a parameter, by its name.

    Raises:
        InputError: There is no data, a flag does not fit the model, or the loss is not finite.
        Interrupted: A signal arrived; a checkpoint was saved.
        RunFailed: The disk, the memory or another process failed.
    """
    run = TrainingRun(model, data, arguments, output, evaluation, options)
    with failures_explained(run.folder), Signals() as signals, run.log, closing(run.batches):
        run.set_training_mode()
        while run.progress < 1:
            run.set_learning_rates()
            run.freeze_parameters()
            seed_torch(arguments.seed, run.state.step, run.accelerator.process_index)  # of dropout
            batch = list(islice(run.batches, run.num_parts))  # this process's part, for each accumulation step
            run.add_gradients(batch)
            run.update_parameters()
            run.state.step += 1
            signal_number = run.synchronize(signals)

            if run.state.step % arguments.logging_steps == 0 or run.progress >= 1:
                run.log_training()
            if run.evaluation_is_due():
                run.evaluate()
                if run.is_out_of_patience():
                    break
            if run.checkpoint_is_due(signal_number):
                run.save_checkpoint()
            if signal_number:
                run.stop(signal_number)
    return run.finish()


class TrainingRun:
    """The state of one run, and the steps that `train` is made of.

    `wrapped` is the model as Accelerate wraps it for several processes. `recurrent_states` has for each accumulation
    step the state that a recurrent model starts with.
    """

    def __init__(
        self,
        model,
        data: TrainingData,
        arguments: TrainingArguments,
        output: TrainingOutput | None,
        evaluation: Evaluation | None,
        options: OptionsByName,
    ):
        if len(data.dataset) == 0:
            raise InputError("there is no example to train on")
        self.model, self.data, self.arguments, self.output = model, data, arguments, output
        self.evaluation = evaluation
        self.folder = folder = None if output is None else output.folder
        self.accelerator = accelerator = make_accelerator(arguments.report_to, folder)
        self.budget = Budget.of(arguments, len(data.dataset))
        self.num_parts = arguments.gradient_accumulation_steps
        self.saves_checkpoints = output is not None and accelerator.distributed_type != DistributedType.DEEPSPEED
        # FSDP2 and DeepSpeed look only once at which parameters need gradients.
        self.computes_all_gradients = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)

        configure_model(model, arguments, accelerator)
        self.state, checkpoint = self._new_state(), None
        if arguments.resume and folder is not None:
            self.state, checkpoint = find_checkpoint(folder, self.state, accelerator)
        self.wrapped, self.optimizer = prepare(model, arguments, options, accelerator, checkpoint)
        if accelerator.scaler is not None and self.state.loss_scale:
            accelerator.scaler.load_state_dict(self.state.loss_scale)
        self.recurrent_states: list[torch.Tensor | None] = [None] * self.num_parts
        if checkpoint is not None and (saved := load_recurrent_state(checkpoint, accelerator.device)) is not None:
            self.recurrent_states = list(saved.chunk(accelerator.num_processes * self.num_parts)[self._own_parts()])
        if output is not None and accelerator.is_main_process:
            output.weights_dir.mkdir(parents=True, exist_ok=True)
        if self.state.step == 0:
            self._save_weights()  # a run that is killed at any moment leaves a loadable folder

        dtype = torch.bfloat16 if arguments.bf16 else torch.float16
        self.precision = torch.autocast(accelerator.device.type, dtype, enabled=arguments.bf16 or arguments.fp16)
        self.gradient_norm: Any = None
        trained = ((name, each) for name, each in model.named_parameters() if each.requires_grad)
        self.starts = {parameter: options(name).start for name, parameter in trained}
        self.frozen: set[torch.nn.Parameter] = set()  # those of `starts` that are not trained yet
        # Listed now, because FSDP2 replaces the parameters of modules while the model computes.
        self.parameters_of = {module: list(module.parameters()) for module in model.modules()}
        self.resumed_at = self.saved_at = self.state.seconds
        self.batches = load_batches(data.dataset, self._own_keys(), data.collate, arguments.dataloader_num_workers)
        self.start = time.monotonic() - self.resumed_at
        self.log = TrainingLog(accelerator, arguments, self.budget, folder, self.state)

    @property
    def progress(self) -> float:
        """Fraction of the run that is complete."""
        return self.budget.progress(self.state.step, self.state.seconds)

    def set_learning_rates(self) -> None:
        """Set the learning rate of every parameter group for the next step."""
        for group in self.optimizer.param_groups:
            factor = learning_rate_factor(self.progress, self.arguments.warmup_ratio, group["start"])
            group["lr"] = self.arguments.learning_rate * group["scale"] * factor

    def freeze_parameters(self) -> None:
        """Freeze the parameters whose training starts later in the run, and compute no gradients of them."""
        frozen = {parameter for parameter, start in self.starts.items() if self.progress < start}
        if frozen != self.frozen:
            self.frozen = frozen
            for parameter in () if self.computes_all_gradients else self.starts:
                parameter.requires_grad_(parameter not in frozen)
            self.set_training_mode()

    def set_training_mode(self) -> None:
        """Set training mode, but evaluation mode for modules of which no parameter is trained.

        A frozen encoder thus has no dropout, and its batch normalization uses the running statistics and keeps them.
        """
        self.wrapped.train()
        for module, parameters in self.parameters_of.items():
            if parameters and not any(each in self.starts and each not in self.frozen for each in parameters):
                module.eval()
                if self.computes_all_gradients and isinstance(module, GradientCheckpointingLayer | torch.nn.RNNBase):
                    module.training = True  # required by checkpointing, and by cuDNN for gradients; its parts stay

    def add_gradients(self, parts: list[dict[str, Any]]) -> None:
        """Add the gradients of the mean loss over the targets of a whole batch, of all processes."""
        # Count the targets of the whole batch first, then weight the mean loss of each part by its targets.
        counts = [(part.pop("num_targets"), part.pop("num_items")) for part in parts]
        num_targets, num_items = sum_over_processes(self.accelerator, *map(sum, zip(*counts, strict=True)))
        loss_sum = torch.zeros((), device=self.accelerator.device)
        # DDP waits for the gradients of all parameters, so without those of frozen ones it cannot average the others.
        without_ddp = bool(self.frozen) and not self.computes_all_gradients
        for i, (part, (part_targets, _)) in enumerate(zip(parts, counts, strict=True)):
            is_last = i == len(parts) - 1
            with contextlib.nullcontext() if is_last and not without_ddp else self.accelerator.no_sync(self.wrapped):
                if part.pop("continues", False):
                    part["state"] = self.recurrent_states[i]
                with self.precision:
                    output = self.wrapped(**send_to_device(part, self.accelerator.device))
                loss, self.recurrent_states[i] = output.loss, output.get("state")
                # Gradients are averaged over processes, hence the number of processes.
                self.accelerator.backward(loss * (part_targets * self.accelerator.num_processes / num_targets))
            loss_sum += loss.detach().float() * part_targets
        for parameter in self.starts if without_ddp else ():
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        self.log.add(loss_sum, num_targets, num_items)

    def update_parameters(self) -> None:
        """Clip the gradients and take an optimizer step."""
        for parameter in self.frozen:
            parameter.grad = None  # where it is computed it would count in the norm
        if self.arguments.fp16:  # Accelerate unscales gradients only if its own flag turned scaling on
            self.accelerator.scaler.unscale_(self.optimizer.optimizer)
        parameters = self.wrapped.parameters()
        self.gradient_norm = self.accelerator.clip_grad_norm_(parameters, self.arguments.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def synchronize(self, signals: Signals) -> int:
        """Agree on the time with all processes. Returns the signal that one of them received, or 0."""
        seconds = time.monotonic() - self.start
        self.state.seconds, signal_number = agree(self.accelerator, seconds, signals.number)
        self.log.progress_bar.advance(self.state.step, self.state.seconds)
        return signal_number

    def log_training(self) -> None:
        """Log the mean loss since the last line. Raises `InputError` if it is not finite."""
        step, loss = self.state.step, self.log.mean_loss()
        norm = self.gradient_norm  # None with DeepSpeed, which clips by itself
        if not math.isfinite(loss):
            raise InputError(f"the loss is {loss} at step {step}; try a lower --learning_rate")
        self.log.write(
            loss=loss,
            epoch=step * self.arguments.batch_size / len(self.data.dataset),
            seconds=self.state.seconds,
            learning_rate=max(group["lr"] for group in self.optimizer.param_groups),
            grad_norm=None if norm is None else float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm),
            **{f"{self.data.item}s_per_second": self.log.items_per_second()},
        )
        self.log.start_window()

    def evaluation_is_due(self) -> bool:
        """Whether to evaluate after this step: at regular intervals and at the end."""
        if self.evaluation is None or self.progress >= 1:
            return self.evaluation is not None
        if self.arguments.eval_steps is not None:
            return self.state.step % self.arguments.eval_steps == 0
        return self.progress * self.evaluation.num_evaluations >= self.state.num_evaluations + 1

    @torch.no_grad()
    def evaluate(self) -> None:
        """Compute and log the metrics; save the weights if they are the best so far."""
        assert self.evaluation is not None
        self.model.eval()
        with self.precision:
            metrics = self.evaluation.measure(self.accelerator)
        self.set_training_mode()
        named = {f"validation_{name}": value for name, value in metrics.items()}
        self.log.write(seconds=self.state.seconds, **named)
        if self.state.note_evaluation(metrics, self.evaluation.metric):
            self._save_weights()

    def is_out_of_patience(self) -> bool:
        """Whether too many evaluations in a row brought no improvement."""
        patience = self.arguments.early_stopping_patience
        return patience is not None and self.state.num_without_improvement >= patience

    def checkpoint_is_due(self, signal_number: int) -> bool:
        """Whether to save a checkpoint after this step: at regular intervals and after a signal."""
        if not self.saves_checkpoints or signal_number:
            return self.saves_checkpoints
        if self.arguments.save_steps is not None:
            return self.state.step % self.arguments.save_steps == 0
        return self.state.seconds - self.saved_at >= SAVE_SECONDS

    def save_checkpoint(self) -> None:
        """Save everything that the run needs to continue."""
        assert self.output is not None
        self.state.log_bytes = self.log.sync()  # the log first: the checkpoint relies on it
        self.state.window_loss, self.state.window_targets = self.log.loss_sum()
        scaler = self.accelerator.scaler
        self.state.loss_scale = {} if scaler is None else scaler.state_dict()
        self.saved_at = self.state.seconds
        states = [state for state in self.recurrent_states if state is not None]
        save_checkpoint(
            self.output.folder,
            self.model,
            self.output.processor,
            self.optimizer,
            self.state,
            self.accelerator.gather(torch.cat(states)) if states else None,
            self.arguments.save_total_limit,
            writes=self.accelerator.is_main_process,
        )

    def stop(self, signal_number: int) -> None:
        """Raise `Interrupted`, when all processes have saved."""
        self.accelerator.wait_for_everyone()  # a process that ends early takes down the one that still writes
        message = f"stopped by {signal.Signals(signal_number).name} after step {self.state.step}"
        if self.folder is not None:
            advice = "go on with the same command and --resume" if self.saves_checkpoints else "DeepSpeed cannot go on"
            message += f", saved in {self.folder}; {advice}"
        raise Interrupted(message, signal_number)

    def finish(self) -> TrainingResult:
        """Save the last weights, unless the best ones are kept."""
        if self.evaluation is None:
            self._save_weights()
        self.accelerator.wait_for_everyone()
        throughput = self.log.num_items / max(self.state.seconds - self.resumed_at, 1e-9)
        deterministic = self.arguments.max_minutes is None and self.accelerator.device.type == "cpu"
        return TrainingResult(self.state.step, self.state.seconds, throughput, deterministic)

    def _save_weights(self) -> None:
        if self.output is not None:
            writes = self.accelerator.is_main_process
            save_model(self.output.weights_dir, self.model, self.output.processor, writes=writes)

    def _new_state(self) -> TrainingState:
        arguments, data = self.arguments, self.data
        order = {"num_samples": len(data.dataset), "batch_size": arguments.batch_size, "seed": arguments.seed}
        order["consecutive"] = data.consecutive
        trained = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        return TrainingState(data_order=order, trained_parameters=trained, optim=arguments.optim)

    def _own_parts(self) -> slice:
        """The parts of a batch, divided among processes and accumulation steps, that this process computes."""
        first = self.accelerator.process_index * self.num_parts
        return slice(first, first + self.num_parts)

    def _own_keys(self) -> Iterator[list[SampleKey]]:
        """The keys of this process's part of each batch, for each accumulation step, from the current step on."""
        data, step, max_samples = self.data, self.state.step, self.budget.max_samples
        size, seed = self.arguments.batch_size, self.arguments.seed
        sampler = BatchSampler(len(data.dataset), size, seed, data.lengths, max_samples, data.consecutive)
        sampler.shuffles = not isinstance(data.dataset, StreamedDataset)
        while self.budget.max_steps is None or step < self.budget.max_steps:
            keys = sampler.batch(step, self.budget.progress(step, self.state.seconds))
            yield from split_batch(keys, self.accelerator.num_processes * self.num_parts)[self._own_parts()]
            step += 1
