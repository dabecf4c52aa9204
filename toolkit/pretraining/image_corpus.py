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
from toolkit.modalities.arguments import ImageEncoderArguments
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


def load_images(
    arguments: ImagePretrainingArguments, run: Run, load: Callable[[str | None], Any], **stream_options: Any
) -> tuple[Any, Any]:
    """Load images to train on and held-out images.

    Args:
        arguments: Arguments of the method.
        run: The run.
        load: Loads a split, by its name.
        stream_options: With `--streaming`, further arguments of `ImageStream`.

    Returns:
        Two data sets of rows; with `--streaming` the first is an `ImageStream`.
    """
    if arguments.images.streaming:
        return _open_stream(arguments, run, **stream_options)
    train_rows = drop_broken(load(arguments.images.split), arguments, run)
    if "validation" in splits_of_labelled_images(arguments.images.corpus):
        return train_rows, drop_broken(load("validation"), arguments, run)
    return hold_out(train_rows.shuffle(seed=0), arguments.images.validation_fraction)


def load_unlabelled_images(arguments: ImagePretrainingArguments, run: Run) -> tuple[Any, Any]:
    """Like `load_images`, ignoring labels."""
    column = arguments.columns.image_column
    load = partial(load_corpus_of_images, arguments.images.corpus, image_column=column)
    return load_images(arguments, run, lambda split: load(split), has_labels=False)


def _open_stream(arguments: ImagePretrainingArguments, run: Run, **stream_options: Any) -> tuple[ImageStream, Any]:
    source = arguments.images
    files, held_out = files_of_stream(source.corpus, source.split), files_of_validation(source.corpus)
    if held_out is None:
        if len(files) < 2:
            raise InputError(
                f"{source.corpus}: one file and no validation split; --streaming holds out one of several files"
            )
        *files, last = files
        held_out = [last]
    open_stream: Any = partial(ImageStream, image_column=arguments.columns.image_column, **stream_options)
    run.say("counting images")
    stream = open_stream(files, seed=arguments.training.seed, buffer_size=source.shuffle_buffer)
    return stream, drop_broken(open_stream(held_out).first(8 * VALIDATION_ROWS), arguments, run)


train_on_images = partial(train_and_record, modality="image", item="image")


def drop_broken(rows, arguments: ImagePretrainingArguments, run: Run):
    """The rows; with `--skip_broken` without images that cannot be opened, which are named."""
    return without_broken(rows, run.say) if arguments.columns.skip_broken else rows


def encode_pixels(
    rows: tuple[Any, Any],
    processor,
    arguments: ImagePretrainingArguments,
    run: Run,
    label2id: dict[str, int] | None = None,
) -> tuple[Any, Any]:
    """Open and resize the images of both splits (a stream does so while training)."""
    from toolkit.modalities.pixels import StreamedImages, encode_images

    run.say("reading images")
    train_rows, validation_rows = rows
    label2id = label2id or {}
    if isinstance(train_rows, ImageStream):
        encoded: Any = StreamedImages(train_rows, processor, label2id, arguments.columns.skip_broken)
    else:
        encoded = encode_images(train_rows, processor, label2id)
    return encoded, encode_images(validation_rows, processor, label2id)


def images_to_measure(rows, arguments: ImagePretrainingArguments, run: Run):
    """Enough of the training images to compute their mean and standard deviation."""
    from toolkit.modalities.pixels import NUM_MEASURED

    return drop_broken(rows.first(NUM_MEASURED), arguments, run) if isinstance(rows, ImageStream) else rows
