"""How long and how fast to train: the flags that every trainable thing shares. Loads no torch."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from toolkit.errors import InputError, check_not_negative, check_positive, check_share
from toolkit.hub.safety import check_repo_id


@dataclass(kw_only=True)
class SharedArguments:
    push_to_hub: str | None = None
    """Send what was made to this repository of a Hub, like org/name, once it is complete; where that fails, a warning
    says how to try again."""

    def __post_init__(self):
        if self.push_to_hub is not None:
            check_repo_id(self.push_to_hub, "--push_to_hub")


@dataclass(kw_only=True)
class TrainingArguments(SharedArguments):
    max_steps: int | None = None
    """End after this many optimiser steps."""
    num_train_epochs: float | None = None
    """End after this many passes over the data (default without any limit: 1 to pretrain, 10 to fine-tune, and there
    at least 400 steps)."""
    max_minutes: float | None = None
    """End after this many minutes; the learning rate reaches zero then."""
    batch_size: int = 32
    """Examples an optimiser step, over all processes and accumulation steps together."""
    gradient_accumulation_steps: int = 1
    """Parts that each process cuts its share of the batch into, to save memory."""
    optim: Literal["adamw", "muon", "sgd"] = "adamw"
    """Optimiser: muon is for the matrices in the layers of a transformer and for convolutions, and leaves the rest to
    adamw; sgd, with Nesterov's momentum of 0.9, wants much higher rates."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    warmup_ratio: float = 0.1
    """Share of the run in which the learning rate rises from zero; then it falls linearly to zero."""
    weight_decay: float = 0.01
    """Weight decay, for matrices only."""
    max_grad_norm: float = 1.0
    """Clip the norm of the gradient to this."""
    bf16: bool = False
    """Multiply matrices in bfloat16, on GPUs and on CPUs that know it; weights stay float32."""
    fp16: bool = False
    """The same in float16, for GPUs without bfloat16; the loss is scaled so that small gradients are not lost."""
    gradient_checkpointing: bool = False
    """Save memory: compute activations a second time instead of keeping them (BERT)."""
    torch_compile: bool = False
    """Compile the model with torch.compile: slow to start, then faster, mostly on GPUs."""
    seed: int = 0
    """Seed of initial weights, data order, masks and dropout."""
    eval_steps: int | None = None
    """Evaluate every so many steps (default: ten times a run to pretrain, five to fine-tune)."""
    early_stopping_patience: int | None = None
    """End when this many evaluations in a row brought nothing better."""
    save_steps: int | None = None
    """Save a checkpoint to resume from every so many steps (default: every ten minutes)."""
    save_total_limit: int = 2
    """Keep this many checkpoints, the newest; the best weights stand in the output folder itself."""
    logging_steps: int = 10
    """Write a line to train_log.jsonl every so many steps."""
    dataloader_num_workers: int = 0
    """Processes that prepare batches; 0 prepares them in the training process."""
    resume: bool = False
    """Go on from the newest whole checkpoint in the output folder."""
    report_to: Literal["trackio", "tensorboard", "wandb"] | None = None
    """Show the log in this tracker as well, which must be installed; nothing is sent unless you log in to it."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(
            self,
            "max_steps num_train_epochs max_minutes batch_size gradient_accumulation_steps learning_rate eval_steps "
            "early_stopping_patience save_steps save_total_limit logging_steps max_grad_norm",
        )
        check_not_negative(self, "weight_decay seed dataloader_num_workers")
        check_share(self, "warmup_ratio")
        if self.bf16 and self.fp16:
            raise InputError("--bf16 --fp16: expected one of them")
        if self.report_to is not None and find_spec(self.report_to) is None:
            raise InputError(f"--report_to {self.report_to}: not installed, try: pip install {self.report_to}")
