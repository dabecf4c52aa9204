"""What a modality is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from toolkit.data.sources import Source
from toolkit.errors import InputError
from toolkit.models.families import Preset, presets
from toolkit.runs.arguments import Arguments


class Modality(ABC):
    """How examples of one kind are loaded, made into model inputs, batched and shown.

    A *row* is an example of a data set. It has the column `name` of the modality (`text`, `image`), which holds the
    *item* itself. An *encoded row* is what `collate` makes batches of; its `size` is used to batch similar ones.
    What cannot be loaded or encoded raises `InputError`.
    """

    name: ClassVar[str]  # of the modality, of the column that holds an item, and of an item in progress lines and JSON
    main_input_names: ClassVar[tuple[str, ...]]  # transformers' `main_input_name` of the models that read it
    columns: ClassVar[type[Arguments]]  # flags that say which columns of a table hold what
    encoder_arguments: ClassVar[type[Arguments]]  # flags that say how an encoder is loaded
    few_shot_head: ClassVar[str | None] = None  # class of `toolkit.models.few_shot_head` for a few-shot classifier
    sample_license: ClassVar[str] = "not known"  # of the data that `sample` stands for when pretraining
    labelled_sample_license: ClassVar[str] = "not known"  # of the labelled data that `sample` stands for
    has_thumbnails: ClassVar[bool] = False  # whether `thumbnail` returns pictures
    items_are_texts: ClassVar[bool] = False  # whether an encoder of items can read descriptions of classes too

    # Data

    @abstractmethod
    def open_labelled(
        self, source: str, columns: Any, label_column: str | None, group_column: str | None = None
    ) -> Source:
        """Open labelled examples: rows with `label`, and with `group` if `group_column` is given."""

    @abstractmethod
    def open_unlabelled(self, source: str, columns: Any) -> Source:
        """Open examples without labels."""

    @abstractmethod
    def read_inputs(self, inputs: Sequence[str | Path], skip_broken: bool = False):
        """Rows to predict, from texts and paths: a list or a `datasets.Dataset`.

        With `skip_broken`, what cannot be read is left out, and named on stderr.
        """

    def cut(self, rows, window_seconds: float, hop_seconds: float) -> list[dict[str, Any]]:
        """Rows for windows of each row, in seconds. Raises `InputError` unless rows are recordings."""
        raise InputError(f"--window_seconds {window_seconds}: goes with recordings")

    # Model inputs

    def presets(self) -> dict[str, Preset]:
        """The presets of encoders that can read the modality, by name."""
        return presets(self.name)

    @abstractmethod
    def new_processor(self, preset: str, options: Any, train_rows):
        """A tokenizer, image processor or feature extractor for a network with random weights, fitted to the training
        data."""

    @abstractmethod
    def new_config(self, preset: str, options: Any, processor):
        """The configuration of a preset for that processor."""

    @abstractmethod
    def load_processor(self, source: str, config, options: Any):
        """The processor of a folder or Hub id."""

    def apply_options(self, name: str, config, processor, options: Any) -> tuple[Any, Any, bool]:
        """Apply the flags of `encoder_arguments` to configuration and processor.

        The last value says whether the configuration is now that of a model *around* the encoder, which loads the
        encoder's weights by its method `load_encoder`.
        """
        return config, processor, False

    def finish(self, model, processor, train_rows, is_scratch: bool) -> None:
        """Called with the loaded model."""
        return

    def adapt(self, model, processor, items: Sequence[Any]) -> None:
        """Take over from the items to learn from what the processor lacks, such as the range of their values."""
        return

    @abstractmethod
    def encode(self, items: Sequence[Any], processor, model) -> list[dict[str, Any]]:
        """One encoded row per item; an `InputError` gives the number of the item that cannot be read."""

    @abstractmethod
    def collate(self, encoded: Sequence[dict[str, Any]], processor) -> dict[str, Any]:
        """The inputs of the model for a batch of encoded rows, as tensors."""

    @abstractmethod
    def pooling(self, model, processor) -> Callable[[dict[str, Any]], Any]:
        """A function from the inputs of a batch to features (N, D), differentiable if gradients are enabled."""

    # Showing

    def describe(self, row: dict[str, Any]) -> dict[str, Any]:
        """How a row is identified in JSON."""
        return {self.name: row[self.name]}

    def title(self, row: dict[str, Any]) -> str:
        """How a row is identified in one line of text."""
        return " ".join(str(row[self.name]).split())

    def thumbnail(self, row: dict[str, Any]) -> str | None:
        """A small picture of the row as a `data:` URL; None if there is none."""
        return None
