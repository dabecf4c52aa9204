"""What `toolkit.training.loop.train` is given besides the model and the flags. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator

    from toolkit.training.loader import CollateFn


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on.

    Attributes:
        dataset: A `datasets.Dataset` or a `StreamedDataset`.
        collate: Makes a batch of samples and their keys, see `toolkit.training.loader`.
        lengths: Length of each sample, to group samples of similar length and reduce padding.
        consecutive: Number of neighbouring samples that follow each other in as many steps; each continues from the
            recurrent state, of shape (samples, ...), that the model returned as `state` for the one before. Batches
            must divide evenly among processes and accumulation steps.
        item: What throughput counts: token, word or image.
    """

    dataset: Any
    collate: CollateFn
    lengths: Sequence[int] | None = None
    consecutive: int = 1
    item: str = "token"


@dataclass(frozen=True)
class TrainingOutput:
    """Where a run writes its log, checkpoints and weights.

    Attributes:
        folder: Folder of the run.
        processor: Tokenizer or image processor to save with the model.
        weights: Name of a folder in it for the weights; by default they are in the folder itself.
    """

    folder: Path
    processor: Any = None
    weights: str = ""

    @property
    def weights_dir(self) -> Path:
        """The folder of the weights."""
        return self.folder / self.weights


@dataclass(frozen=True)
class Evaluation:
    """What is measured during training.

    Attributes:
        measure: Computes metrics of the model, which is in evaluation mode.
        metric: The metric by which the best weights are kept: lower is better for `loss`, higher for all others. With
            None the last weights are kept.
        num_evaluations: Number of evaluations in the run, without `--eval_steps`.
    """

    measure: Callable[[Accelerator], dict[str, float]]
    metric: str | None = "loss"
    num_evaluations: int = 10
