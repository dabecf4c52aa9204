"""From the flags of an image method to its data: labelled or unlabelled images, in memory or streamed."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.data.columns import ImageColumn
from toolkit.data.image_files import IMAGES
from toolkit.data.image_stream import ImageStream, files_of_stream, splits_of_stream
from toolkit.data.sources import Source
from toolkit.data.summary import DataSummary
from toolkit.errors import InputError, check_between_0_and_1, check_positive
from toolkit.hub.arguments import HubArguments
from toolkit.modalities import MODALITIES
from toolkit.modalities.arguments import ImageEncoderArguments
from toolkit.models.families import SCRATCH
from toolkit.pretraining.media_corpus import drop_broken, load_corpus
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


def load_images(run: Run, source: Source | None, **stream_options: Any) -> tuple[Any, Any]:
    """Load images to train on and held-out images, two data sets of rows, and say what they hold.

    `source` is None with `--streaming`; then the first data set is an `ImageStream`, made with `stream_options`.
    """
    flags = run.arguments.images
    if source is None:
        return _open_stream(run, **stream_options)
    return load_corpus(run, source, flags, IMAGES)


def load_unlabelled(run: Run) -> tuple[Any, Any]:
    """Like `load_images`, ignoring labels."""
    flags, column = run.arguments.images, run.arguments.columns.image_column
    source = None if flags.streaming else IMAGES.open_unlabelled(flags.corpus, column)
    return load_images(run, source, has_labels=False)


def _open_stream(run: Run, **stream_options: Any) -> tuple[ImageStream, Any]:
    source = run.arguments.images
    found = splits_of_stream(source.corpus)
    files, held_out_of = files_of_stream(source.corpus, source.split), None
    if "validation" in found.splits:
        held_out = files_of_stream(source.corpus, "validation")
    else:
        if len(files) < 2:
            raise InputError(
                f"{source.corpus}: one file and no validation split; --streaming holds out one of several files"
            )
        *files, last = files
        held_out, held_out_of = [last], "train"
    open_stream: Any = partial(ImageStream, image_column=run.arguments.columns.image_column, **stream_options)
    run.say("counting images")
    stream = open_stream(files, seed=run.arguments.training.seed, buffer_size=source.shuffle_buffer)
    held_out_rows = drop_broken(open_stream(held_out).first(8 * VALIDATION_ROWS), run, IMAGES, found)
    summary = DataSummary(source.corpus, found)
    summary.add("train", stream, None if stream.label_column is None else stream.labels.elements())
    summary.add("validation", held_out_rows, part_of=held_out_of)
    run.describe_data(summary)
    return stream, held_out_rows


def some_images(rows, run: Run):
    """Enough of the training images to compute their mean and standard deviation."""
    from toolkit.modalities.pixels import NUM_MEASURED

    return drop_broken(rows.first(NUM_MEASURED), run, IMAGES) if isinstance(rows, ImageStream) else rows


def new_encoder(run: Run, train_rows, auto_class: str = "AutoModel", **config_fields: Any) -> tuple[Any, Any]:
    """An encoder with random weights, perhaps under a head, and an image processor that is fitted to the images."""
    import torch

    from toolkit.transfer.encoders import load_encoder

    torch.manual_seed(run.arguments.training.seed)
    name, images = SCRATCH + run.arguments.encoder.preset, some_images(train_rows, run)
    return load_encoder(name, auto_class, MODALITIES["image"], run.arguments.options, images, **config_fields)


def train_on_images(
    run: Run, model, processor, rows, collate, eval_collate, label2id: dict[str, int] | None = None, **options: Any
) -> dict[str, Any]:
    """Open and resize the images of both splits (a stream does so while training), train on them and write the record.

    `options` are further arguments of `train_and_record`.
    """
    from toolkit.modalities.pixels import StreamedImages, encode_images

    run.say("reading images")
    train_rows, label2id = rows[0], label2id or {}
    if isinstance(train_rows, ImageStream):
        encoded: Any = StreamedImages(train_rows, processor, label2id, run.arguments.columns.skip_broken)
    else:
        encoded = encode_images(train_rows, processor, label2id)
    both = encoded, encode_images(rows[1], processor, label2id)
    run.create_output_dir()
    return train_and_record(run, model, processor, both, collate, eval_collate, item="image", row="image", **options)
