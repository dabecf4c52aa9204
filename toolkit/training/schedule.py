"""The limits of a run, its progress, and the learning rate that follows from it."""

import math
from dataclasses import dataclass

from toolkit.errors import InputError
from toolkit.training.arguments import TrainingArguments


@dataclass(frozen=True)
class Budget:
    """The limits of a run; it ends at whichever comes first."""

    max_steps: int | None = None
    max_minutes: float | None = None  # including evaluations and checkpoints
    max_samples: int | None = None  # the last step may hold fewer samples than the others

    @classmethod
    def of(cls, arguments: TrainingArguments, num_samples: int) -> "Budget":
        """The budget that the flags give for a data set of `num_samples`. Raises `InputError` if they set no limit."""
        if not arguments.has_limit:
            raise InputError("how long to train? give --max_steps, --num_train_epochs or --max_minutes")
        if arguments.num_train_epochs is None:
            return cls(arguments.max_steps, arguments.max_minutes)
        max_samples = max(1, round(arguments.num_train_epochs * num_samples))
        steps = math.ceil(max_samples / arguments.batch_size)
        return cls(min(steps, arguments.max_steps or steps), arguments.max_minutes, max_samples)

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the run that is complete, from 0 to 1."""
        fractions = [0.0]
        if self.max_steps is not None:
            fractions.append(step / self.max_steps)
        if self.max_minutes is not None:
            fractions.append(seconds / (60 * self.max_minutes))
        return min(1.0, max(fractions))


def learning_rate_factor(progress: float, warmup_ratio: float, start: float = 0.0) -> float:
    """Linear warm-up from 0 to 1, then linear decay to 0.

    The schedule begins when `start`, a fraction of the run, is complete; the factor is 0 before.
    """
    progress = max(0.0, progress - start) / (1 - start)
    if progress < warmup_ratio:
        return progress / warmup_ratio
    return (1 - progress) / (1 - warmup_ratio)
