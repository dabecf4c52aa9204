"""What a task is: from labelled rows to model inputs, from model outputs to predictions, from predictions to figures.

A *row* is an example of the data. An *encoded* row is what `collate` makes batches of; its `index` says which row it
was made from, its `part` which part of that row. A *reference* is the correct answer of a row.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from toolkit.data.sources import Source, find_inputs
from toolkit.errors import InputError, check_flags, check_not_negative, check_positive, check_share
from toolkit.hub.arguments import HubArguments
from toolkit.metrics.intervals import Bootstrap
from toolkit.modalities import MODALITIES, Modality
from toolkit.models.families import SCRATCH
from toolkit.runs.arguments import Arguments, defaults, to_flags, with_flags
from toolkit.runs.output import OutputArguments
from toolkit.training.arguments import TrainingArguments

A = TypeVar("A", bound="FinetuneArguments")
NO_LABEL = -100  # id of a label that is not trained on, as in torch


@dataclass(kw_only=True)
class LabelledDataArguments(Arguments):
    """data"""

    data: str
    """Labelled data: a file, a folder with one file per split or one folder per label, a Hub id, or 'sample'."""
    train_size: int | None = None
    """Train on this many examples only."""
    per_class: bool = False
    """--train_size counts the examples of each class; a class that has fewer gives all."""
    subset_seed: int = 0
    """Seed of the choice of those examples; a larger subset contains every smaller one."""

    def check(self) -> None:
        check_positive(self, "train_size")
        check_not_negative(self, "subset_seed")


@dataclass(kw_only=True)
class EncoderArguments(Arguments):
    """encoder"""

    encoder: str
    """A checkpoint folder, a Hub id, or 'scratch:' and a preset or folder for the same network with random weights."""
    freeze: bool = False
    """Train the head only, on the encoder in evaluation mode (without dropout)."""


@dataclass(kw_only=True)
class TransferArguments(Arguments):
    """transfer"""

    learning_rates: list[float] | None = None
    """Train once with each of these learning rates and keep the best on validation data (instead of
    --learning_rate)."""
    head_warmup_ratio: float = 0.1
    """Fraction of training steps during which a pretrained encoder stays frozen, in evaluation mode, and only the head
    is trained (LP-FT, Kumar et al. 2022)."""
    layerwise_lr_decay: float = 0.25
    """Learning rate of the lowest layer of a pretrained encoder as a fraction of the head's; the layers in between
    are spaced geometrically (discriminative fine-tuning, Howard & Ruder 2018)."""

    def check(self) -> None:
        check_share(self, "head_warmup_ratio")
        check_flags(self, "layerwise_lr_decay", lambda value: 0 < value <= 1, "a fraction above 0, at most 1")
        if any(rate <= 0 for rate in self.learning_rates or ()):
            raise InputError(f"--learning_rates {min(self.learning_rates or ())}: expected numbers greater than zero")


@dataclass(kw_only=True)
class FinetuneArguments(Arguments):
    """Arguments of `toolkit finetune`; a task adds `columns`, `options` of the modality, and groups of its own."""

    data: LabelledDataArguments
    output: OutputArguments
    encoder: EncoderArguments
    columns: Arguments = defaults(Arguments)
    options: Arguments = defaults(Arguments)
    transfer: TransferArguments = defaults(TransferArguments)
    training: TrainingArguments = defaults(TrainingArguments)
    hub: HubArguments = defaults(HubArguments)

    @property
    def metric(self) -> str:
        """The figure by which checkpoints and learning rates are chosen on validation data, and encoders compared."""
        return "accuracy"

    def from_scratch(self: A) -> A:
        """The same network with random weights. All of it is trained: frozen random weights give random features."""
        return with_flags(self, encoder=SCRATCH + self.encoder.encoder, freeze=False)

    def resolved(self) -> "FinetuneArguments":
        """The same with defaults that depend on other flags resolved."""
        return self


@dataclass(kw_only=True)
class SearchArguments(Arguments):
    """search, of a model that generates"""

    num_beams: int | None = None
    """Beams of the search for the best target; 1 is greedy search. Without this flag, prediction searches as it did
    after fine-tuning."""
    length_penalty: float | None = None
    """The log-probability of a target is divided by its length to this power when beams are compared."""
    max_new_tokens: int | None = None
    """Longest target that is generated; without this flag, twice the longest one in the training data."""

    def check(self) -> None:
        check_positive(self, "num_beams max_new_tokens")
        if self.num_beams == 1 and self.length_penalty not in (None, 1.0):
            raise InputError(f"--length_penalty {self.length_penalty}: --num_beams 1 compares no beams")

    def given(self) -> dict[str, Any]:
        """The flags that were given."""
        return {name: value for name, value in to_flags(self).items() if value is not None}


class Prediction(ABC):
    """The answer of a model for one row."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Its fields in `predictions.jsonl`, `predicted` among them."""

    @abstractmethod
    def as_text(self, title: str) -> str:
        """A line for people and spreadsheets; `title` identifies the row."""

    @abstractmethod
    def cells(self) -> list[str]:
        """The answer as cells of a table: one, or one for each part of the row."""

    def best(self, number: int | None) -> "Prediction":
        """The same with the best answers only, this many at most, if it holds several."""
        return self


def check_label(label: str, folder: str, labels: Sequence[str]) -> str:
    """The label. Raises `InputError` if the checkpoint does not have it."""
    if label not in labels:
        raise InputError(f"--label {label}: not a label of {folder}, which has {', '.join(labels)}")
    return label


class Task(ABC):
    """A task on one modality.

    Attributes:
        name: Name in `toolkit finetune NAME` and in the configuration of a checkpoint.
        modality_name: Key of `MODALITIES`.
        arguments: Data class of the flags of `toolkit finetune NAME`.
        auto_class: transformers' Auto class of the head.
        reference_column: Column of a row that holds the reference.
        item: What throughput counts.
        baseline_name: The usual method without a network.
        tunes_threshold: Whether `tune_threshold` is called after training.
        generates: Whether the answer is generated, by a search that has flags.
    """

    name: ClassVar[str]
    modality_name: ClassVar[str]
    arguments: ClassVar[type[FinetuneArguments]]
    auto_class: ClassVar[str]
    reference_column: ClassVar[str]
    item: ClassVar[str]
    baseline_name: ClassVar[str] = "no baseline"
    tunes_threshold: ClassVar[bool] = False
    generates: ClassVar[bool] = False

    @property
    def modality(self) -> Modality:
        return MODALITIES[self.modality_name]

    # Data

    @abstractmethod
    def open(self, source: str, columns: Any) -> Source:
        """Open labelled data. Raises `InputError` if it is missing or malformed."""

    def columns_of(self, columns: Any, config) -> Any:
        """The columns to read for a fine-tuned checkpoint, from those that were named and from its configuration."""
        return columns

    def read_inputs(self, inputs: Sequence[str | Path], skip_broken: bool = False, config=None):
        """Rows to predict, from texts and paths: a list or a `datasets.Dataset`. Raises `InputError`.

        With `skip_broken`, what cannot be read is left out, and named on stderr. `config` is the configuration of the
        checkpoint.
        """
        return self.modality.read_inputs(inputs, skip_broken)

    def read_one(self, item: str, config=None) -> dict[str, Any]:
        """The row of one text, or of a file with one, for a checkpoint of this configuration.

        Raises `InputError` if there are several.
        """
        rows = self.read_inputs(find_inputs([item]), config=config)
        if len(rows) != 1:
            raise InputError(f"{item[:40]}…: {len(rows)} of them, expected one at a time")
        return rows[0]

    def check_to_split(self, source: str, rows) -> None:
        """Called with rows of which some will be held out for validation. Raises `InputError` if they are too few."""
        return

    def labels(self, rows) -> set[str] | None:
        """All labels; None for a task without labels."""
        return None

    def counted(self, rows) -> list[Any] | None:
        """What the summary of the data counts: the labels of each row; None for a task without labels."""
        return rows[self.reference_column]

    def seen(self, rows) -> set[str]:
        """What counts as seen in training when figures are computed, such as words."""
        return set()

    # Model

    def config_fields(self, arguments: Any) -> dict[str, Any]:
        """What the configuration of the model stores of the arguments, besides labels and task."""
        return {}

    def load_model(self, arguments: Any, train_rows, **config_fields: Any) -> tuple[Any, Any]:
        """The encoder under the task's head, and its processor. Raises `InputError`."""
        from toolkit.transfer.encoders import load_encoder

        name, options = arguments.encoder.encoder, arguments.resolved().options
        return load_encoder(name, self.auto_class, self.modality, options, train_rows, **config_fields)

    def load_finetuned(self, folder: str) -> tuple[Any, Any]:
        """Model and processor of a fine-tuned checkpoint. Raises `InputError`."""
        from toolkit.transfer.encoders import load_encoder

        return load_encoder(folder, self.auto_class, self.modality)

    @abstractmethod
    def encode(self, rows, processor, model):
        """A `datasets.Dataset` of encoded rows."""

    def select_known(self, rows, processor, config, skip_broken: bool):
        """The rows that the model can read, to predict. Raises `InputError` for another one, unless it is skipped."""
        return rows

    def set_search(self, model, search: SearchArguments) -> None:
        """Use the flags of the search that were given. Raises `InputError` if the task does not generate."""
        for name, value in search.given().items():
            if not self.generates:
                raise InputError(f"--{name} {value}: the task {self.name} has no search")
            setattr(model.generation_config, name, value)

    def notes(self, rows, processor) -> list[str]:
        """Lines to print before training about how the processor reads the rows."""
        return []

    def lengths(self, encoded) -> list[int] | None:
        """The lengths of encoded rows, if batches should hold rows of similar length."""
        return None

    @abstractmethod
    def collate(self, encoded: list[dict], keys, processor, arguments: Any | None) -> dict[str, Any]:
        """A batch; with `arguments` one to train on, with their augmentation."""

    def fit_head(self, model, processor, encoded: dict[str, Any], is_scratch: bool) -> bool:
        """Fit the head of a frozen encoder without the training loop. Returns whether it was fitted."""
        return False

    def tune_threshold(self, model, rows, predictions: list[Any], arguments: Any) -> bool:
        """Choose a decision threshold on validation data. Returns whether the configuration changed."""
        return False

    def forward(self, model, inputs: dict[str, Any], while_training: bool = False) -> Any:
        """The outputs for a batch: logits, or generated sequences, `while_training` by a faster search."""
        return model(**inputs).logits

    # Predictions

    @abstractmethod
    def decode(self, encoded: list[dict], outputs: Any, model, processor) -> list[Any]:
        """One prediction per encoded row of a batch, from what `forward` returned."""

    def join(self, parts: list[Any]) -> Any:
        """One prediction from those for the parts of a row."""
        (prediction,) = parts
        return prediction

    @abstractmethod
    def read_prediction(self, line: dict[str, Any]) -> Any:
        """The prediction in a line of `predictions.jsonl`."""

    @abstractmethod
    def figures(self, rows, predictions: list[Any], seen: set[str] | None = None) -> dict[str, Bootstrap]:
        """All figures of the task; those about unseen items only if `seen` is given."""

    def explain(
        self, folder: str, item: str, label: str | None, layers: Sequence[str] | None, output_dir: Path
    ) -> tuple[str, list[Path]]:
        """Write pictures of what a fine-tuned checkpoint does with one item.

        Args:
            folder: The checkpoint.
            item: A text, or the path of an image.
            label: The label to explain (default: the predicted one).
            layers: Names of the layers that are shown (default: the main ones).
            output_dir: Folder for the pictures.

        Returns:
            The prediction as a line of text, and the paths of the files.

        Raises:
            InputError: The checkpoint or the item cannot be used, or the task explains nothing.
        """
        raise InputError(f"{folder}: its task is {self.name}, which has no pictures")

    def confusion(self, rows, predictions: list[Any]) -> tuple[list[str], list[str]] | None:
        """Correct labels and predicted labels for a confusion matrix; None if the task has none."""
        return None

    def baseline(self, train_rows, rows) -> list[Any]:
        """Predictions for `rows` of the usual method without a network, trained on `train_rows`."""
        raise InputError(f"--baseline: the task {self.name} has none")

    def describe(self, row: dict[str, Any]) -> dict[str, Any]:
        """How a row is identified in JSON."""
        return self.modality.describe(row)

    def title(self, row: dict[str, Any]) -> str:
        """How a row is identified in a line of text."""
        return self.modality.title(row)

    def caption(self, line: dict[str, Any]) -> str:
        """What stands above an example in the report."""
        return str(line.get(self.modality.name, ""))

    def right_cells(self, reference: Any) -> list[list[str]]:
        """A reference as cells of a table, each with all answers that are right."""
        return [[str(part)] for part in (reference if isinstance(reference, list) else [reference])]

    def header(self, line: dict[str, Any]) -> list[str]:
        """What stands above the cells of a reference in the report: the parts of the row, if there are any."""
        return []
