"""Flags of training, named as in `transformers.TrainingArguments` where it has the setting. Imports no torch."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

from toolkit.errors import InputError, check_not_negative, check_positive, check_share
from toolkit.runs.arguments import Arguments


@dataclass(kw_only=True)
class DurationArguments(Arguments):
    """how long"""

    max_steps: int | None = None
    """Stop after this many optimizer steps."""
    num_train_epochs: float | None = None
    """Stop after this many passes over the data (default without any limit: 1 for text, 10 for images and 20 for
    recordings when pretraining; 10, and at least 400 steps, when fine-tuning)."""
    max_minutes: float | None = None
    """Stop after this many minutes, when the learning rate has decayed to zero."""
    early_stopping_patience: int | None = None
    """Stop after this many evaluations in a row without improvement."""

    def check(self) -> None:
        check_positive(self, "max_steps num_train_epochs max_minutes early_stopping_patience")

    @property
    def has_limit(self) -> bool:
        """Whether any flag limits the run."""
        return any(limit is not None for limit in (self.max_steps, self.num_train_epochs, self.max_minutes))


@dataclass(kw_only=True)
class OptimizerArguments(Arguments):
    """optimizer"""

    batch_size: int = 32
    """Examples per optimizer step, over all processes and accumulation steps."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    warmup_ratio: float = 0.1
    """Fraction of the run with linear warm-up of the learning rate; linear decay to zero follows."""
    optim: Literal["adamw", "muon", "sgd"] = "adamw"
    """Optimizer. muon trains the matrices of transformer layers and convolutions with Muon and the rest with AdamW;
    sgd has Nesterov momentum 0.9 and needs much higher learning rates."""
    weight_decay: float = 0.01
    """Weight decay of matrices; biases and norms do not decay."""
    max_grad_norm: float = 1.0
    """Clip the gradient norm to this value."""
    gradient_accumulation_steps: int = 1
    """Split the batch of each process into this many parts, to save memory."""
    seed: int = 0
    """Seed of the initial weights, the data order, masks and dropout."""

    def check(self) -> None:
        check_positive(self, "batch_size learning_rate max_grad_norm gradient_accumulation_steps")
        check_not_negative(self, "weight_decay seed")
        check_share(self, "warmup_ratio")


@dataclass(kw_only=True)
class PrecisionArguments(Arguments):
    """precision and devices"""

    bf16: bool = False
    """Autocast to bfloat16 (GPUs, and CPUs that support it); weights stay float32."""
    fp16: bool = False
    """Autocast to float16 with loss scaling (GPUs without bfloat16); weights stay float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, to save memory (transformer encoders only)."""
    torch_compile: bool = False
    """Compile the model with torch.compile, which starts slowly and then trains faster, mostly on GPUs."""
    dataloader_num_workers: int = 0
    """Number of worker processes that prepare batches; 0 prepares them in the training process."""

    def check(self) -> None:
        check_not_negative(self, "dataloader_num_workers")
        if self.bf16 and self.fp16:
            raise InputError("--bf16 --fp16: expected one of them")


@dataclass(kw_only=True)
class CheckpointArguments(Arguments):
    """evaluation and checkpoints"""

    eval_steps: int | None = None
    """Evaluate after every N steps (default: ten times per run when pretraining, five times when fine-tuning)."""
    save_steps: int | None = None
    """Save a checkpoint after every N steps (default: every ten minutes)."""
    save_total_limit: int = 2
    """Keep the newest N checkpoints; the best weights are saved in the output folder itself."""
    resume: bool = False
    """Continue from the newest complete checkpoint in the output folder."""

    def check(self) -> None:
        check_positive(self, "eval_steps save_steps save_total_limit")


@dataclass(kw_only=True)
class LoggingArguments(Arguments):
    """logging"""

    logging_steps: int = 10
    """Write a line to train_log.jsonl after every N steps."""
    report_to: Literal["trackio", "tensorboard", "wandb"] | None = None
    """Also log to this tracker, which must be installed. Nothing is uploaded unless you log in to it."""

    def check(self) -> None:
        check_positive(self, "logging_steps")
        if self.report_to is not None and find_spec(self.report_to) is None:
            raise InputError(f"--report_to {self.report_to}: not installed, try: pip install {self.report_to}")


@dataclass(kw_only=True)
class TrainingArguments(
    LoggingArguments, CheckpointArguments, PrecisionArguments, OptimizerArguments, DurationArguments
):
    """training"""

    def with_default_epochs(self, num_epochs: float) -> "TrainingArguments":
        """A copy that lasts `num_epochs`, unless a flag limits the run."""
        return self if self.has_limit else replace(self, num_train_epochs=num_epochs)
