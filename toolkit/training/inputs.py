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

    With `consecutive` > 1 as many neighbouring samples follow each other in as many steps. Each continues from the
    recurrent state, of shape (samples, ...), that the model returned as `state` for the one before. Batches must then
    divide evenly among processes and accumulation steps.
    """

    dataset: Any  # a list of rows, a `datasets.Dataset` or a `StreamedDataset`
    collate: CollateFn  # makes a batch of samples and their keys, see `toolkit.training.loader`
    lengths: Sequence[int] | None = None  # of each sample, to group samples of similar length and reduce padding
    consecutive: int = 1
    item: str = "token"  # what throughput counts: token, word, image or recording


@dataclass(frozen=True)
class TrainingOutput:
    """Where a run writes its log, checkpoints and weights."""

    folder: Path
    processor: Any = None  # tokenizer, image processor or feature extractor to save with the model
    weights: str = ""  # name of a folder in `folder` for the weights

    @property
    def weights_dir(self) -> Path:
        return self.folder / self.weights


@dataclass(frozen=True)
class Evaluation:
    """What is measured during training, and the metric by which the best weights are kept.

    Lower is better for `loss`, higher for all other metrics; with None the last weights are kept.
    """

    measure: Callable[[Accelerator], dict[str, float]]  # computes metrics of the model, which is in evaluation mode
    metric: str | None = "loss"
    num_evaluations: int = 10  # in the run, without `--eval_steps`
