"""From the flags of an image method to its data: labelled or unlabelled images, in memory or streamed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.data.columns import ImageColumn
from toolkit.data.image_files import load_corpus_of_images, splits_of_labelled_images, without_broken
from toolkit.data.image_stream import ImageStream, files_of_stream, files_of_validation
from toolkit.data.rows import hold_out
from toolkit.errors import InputError, check_between_0_and_1, check_positive
from toolkit.hub.arguments import HubArguments
from toolkit.modalities import MODALITIES
from toolkit.modalities.arguments import ImageEncoderArguments
from toolkit.models.families import SCRATCH
from toolkit.pretraining.method import PresetArguments
from toolkit.pretraining.run import VALIDATION_ROWS, Run, train_and_record
from toolkit.runs.arguments import Arguments, defaults
from toolkit.runs.output import OutputArguments
from toolkit.training.arguments import TrainingArguments


@dataclass(kw_only=True)
class ImageSourceArguments(Arguments):
    """data"""

    corpus: str
    """Images: a folder with one folder per label, a table, a Hub id, or 'sample'; if labels are not needed, also a
    folder that contains images."""
    split: str | None = None
    """Split of a folder or Hub data set (default: train)."""
    validation_fraction: float = 0.05
    """Fraction of the images to hold out if there is no validation split (for prototypical: of the classes)."""
    streaming: bool = False
    """Read sharded .parquet or webdataset (.tar) files, here or on a Hub, while training, without a copy on disk or in
    memory. The first images of the validation split, or of the last file without one, are held out."""
    shuffle_buffer: int = 1000
    """Size of the shuffle buffer with --streaming, in images."""

    def check(self) -> None:
        check_between_0_and_1(self, "validation_fraction")
        check_positive(self, "shuffle_buffer")


@dataclass(kw_only=True)
class ImagePretrainingArguments(Arguments):
    """What all methods on images share; `options` is how the encoder is built."""

    images: ImageSourceArguments
    output: OutputArguments
    encoder: PresetArguments
    columns: ImageColumn = defaults(ImageColumn)
    options: ImageEncoderArguments = defaults(ImageEncoderArguments, hidden=("pooling", "keep_size"))
    training: TrainingArguments = defaults(TrainingArguments)
    hub: HubArguments = defaults(HubArguments)

    def check(self) -> None:
        self.training = self.training.with_default_epochs(10.0)


def load_images(run: Run, load: Callable[[str | None], Any], **stream_options: Any) -> tuple[Any, Any]:
    """Load images to train on and held-out images, two data sets of rows.

    `load` loads a split. With `--streaming` the first data set is an `ImageStream`, made with `stream_options`.
    """
    source = run.arguments.images
    if source.streaming:
        return _open_stream(run, **stream_options)
    train_rows = drop_broken(load(source.split), run)
    if "validation" in splits_of_labelled_images(source.corpus):
        return train_rows, drop_broken(load("validation"), run)
    return hold_out(train_rows.shuffle(seed=0), source.validation_fraction)


def load_unlabelled_images(run: Run) -> tuple[Any, Any]:
    """Like `load_images`, ignoring labels."""
    source, column = run.arguments.images.corpus, run.arguments.columns.image_column
    return load_images(run, lambda split: load_corpus_of_images(source, split, column), has_labels=False)


def _open_stream(run: Run, **stream_options: Any) -> tuple[ImageStream, Any]:
    source = run.arguments.images
    files, held_out = files_of_stream(source.corpus, source.split), files_of_validation(source.corpus)
    if held_out is None:
        if len(files) < 2:
            raise InputError(
                f"{source.corpus}: one file and no validation split; --streaming holds out one of several files"
            )
        *files, last = files
        held_out = [last]
    open_stream: Any = partial(ImageStream, image_column=run.arguments.columns.image_column, **stream_options)
    run.say("counting images")
    stream = open_stream(files, seed=run.arguments.training.seed, buffer_size=source.shuffle_buffer)
    return stream, drop_broken(open_stream(held_out).first(8 * VALIDATION_ROWS), run)


def drop_broken(rows, run: Run):
    """The rows; with `--skip_broken` without images that cannot be opened, which are named."""
    return without_broken(rows, run.say) if run.arguments.columns.skip_broken else rows


def images_to_measure(rows, run: Run):
    """Enough of the training images to compute their mean and standard deviation."""
    from toolkit.modalities.pixels import NUM_MEASURED

    return drop_broken(rows.first(NUM_MEASURED), run) if isinstance(rows, ImageStream) else rows


def new_encoder(run: Run, train_rows, auto_class: str = "AutoModel", **config_fields: Any) -> tuple[Any, Any]:
    """An encoder with random weights, perhaps under a head, and an image processor that is fitted to the images."""
    import torch

    from toolkit.transfer.encoders import load_encoder

    torch.manual_seed(run.arguments.training.seed)
    name, images = SCRATCH + run.arguments.encoder.preset, images_to_measure(train_rows, run)
    return load_encoder(name, auto_class, MODALITIES["image"], run.arguments.options, images, **config_fields)


def encode_pixels(
    rows: tuple[Any, Any], processor, run: Run, label2id: dict[str, int] | None = None
) -> tuple[Any, Any]:
    """Open and resize the images of both splits (a stream does so while training)."""
    from toolkit.modalities.pixels import StreamedImages, encode_images

    run.say("reading images")
    train_rows, validation_rows = rows
    label2id = label2id or {}
    if isinstance(train_rows, ImageStream):
        encoded: Any = StreamedImages(train_rows, processor, label2id, run.arguments.columns.skip_broken)
    else:
        encoded = encode_images(train_rows, processor, label2id)
    return encoded, encode_images(validation_rows, processor, label2id)


train_on_images = partial(train_and_record, item="image", row="image")


def held_out_accuracy(model, rows, collate, batch_size: int, accelerator, is_right) -> dict[str, float]:
    """The fraction of right predictions with its interval, the same on all processes.

    `is_right(logits, batch)` is a bool tensor (units, predictions); the bootstrap resamples units.
    """
    import torch

    from toolkit.metrics.intervals import ratio_interval
    from toolkit.training.distributed import gather_objects
    from toolkit.training.evaluation import evaluation_batches

    hits: list[tuple[int, int]] = []
    with torch.no_grad():
        for batch in evaluation_batches(rows, collate, batch_size, accelerator, lockstep=True):
            right = is_right(model(pixel_values=batch["pixel_values"]).logits, batch)
            if batch["num_items"]:
                hits += [(count, right.shape[1]) for count in right.sum(dim=1).tolist()]
    num_right, totals = zip(*gather_objects(accelerator, hits), strict=True)
    return ratio_interval(num_right, totals)
