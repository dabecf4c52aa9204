"""Pretraining on images, with labels and without, of whatever network there is a preset of."""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from toolkit.data.image_stream import ImageStream, files_of_stream, files_of_validation
from toolkit.data.rows import hold_out
from toolkit.errors import InputError
from toolkit.pretraining.arguments import (
    ImageArguments,
    ImageCorpusArguments,
    PrototypicalArguments,
    ResNetArguments,
    SimCLRArguments,
    ViTMAEArguments,
)
from toolkit.pretraining.run import Run


def pretrain_on_labels(method: str, arguments: ResNetArguments) -> dict[str, Any]:
    """An image classifier, whose encoder has learned to see what tells the labels apart."""
    import torch

    from toolkit.data.image_files import load_labelled_images
    from toolkit.models.families import get_image_preset
    from toolkit.pretraining.supervised import CollateImages, held_out_accuracy, set_loss, weights_of
    from toolkit.transfer.encoders import SCRATCH, load_image_encoder

    run = ImageRun(method, arguments)
    get_image_preset(arguments.preset, method)
    columns = arguments.image_column, arguments.label_column
    train_rows, validation_rows = run.load(
        lambda split: load_labelled_images(arguments.corpus, split, *columns, arguments.labels)
    )
    counts = train_rows.labels if isinstance(train_rows, ImageStream) else Counter(train_rows["label"])
    labels = sorted(counts)
    if not labels:
        raise InputError(f"{arguments.corpus}: there is no image of a label that is asked for")
    if len(labels) < 2:
        raise InputError(f"{arguments.corpus}: the only label is {labels[0]}, expected two or more")
    label2id = {label: i for i, label in enumerate(labels)}
    torch.manual_seed(arguments.seed)
    model, processor = load_image_encoder(
        SCRATCH + arguments.preset,
        "AutoModelForImageClassification",
        arguments.image_size,
        run.some_of(train_rows),
        arguments.pooling,
        arguments.keep_size,
        id2label=dict(enumerate(labels)),
        label2id=label2id,
    )
    weights = weights_of(counts, labels) if arguments.class_weights else None
    set_loss(model, arguments.label_smoothing, weights)
    images, held_out = run.pixels(train_rows, validation_rows, processor, label2id)
    collate, exact = CollateImages.to_train(processor, arguments), CollateImages(processor)

    def measure(model) -> dict[str, Any]:
        return {"accuracy": held_out_accuracy(model, held_out, exact, run.VALIDATION_BATCH_SIZE, run.accelerator)}

    run.create_output_dir()
    return run.train(model, processor, images, held_out, collate, exact, item="image", measure=measure)


def pretrain_simclr(arguments: SimCLRArguments) -> dict[str, Any]:
    """An encoder that tells two views of an image from all other images."""
    import torch

    from toolkit.modalities.pixels import Views
    from toolkit.models.contrastive import around
    from toolkit.models.families import get_image_preset
    from toolkit.pretraining.views import CollateViews
    from toolkit.transfer.encoders import SCRATCH, load_image_encoder

    run = ImageRun("simclr", arguments)
    preset = get_image_preset(arguments.preset)
    train_rows, validation_rows = run.load_unlabelled()
    torch.manual_seed(arguments.seed)
    encoder, processor = load_image_encoder(
        SCRATCH + arguments.preset, "AutoModel", arguments.image_size, run.some_of(train_rows)
    )
    model = around(
        encoder, arguments.image_size or preset.image_size, arguments.projection_size, arguments.temperature
    )
    collate = CollateViews(processor, Views(arguments.seed, arguments.smallest_part, arguments.color_strength))
    images, held_out = run.pixels(train_rows, validation_rows, processor)
    run.create_output_dir()
    return run.train(
        model, processor, images, held_out, collate, collate, item="image", result=lambda model: model.encoder
    )


def pretrain_vit_mae(arguments: ViTMAEArguments) -> dict[str, Any]:
    """A vision transformer that guesses what is hidden of an image."""
    import torch

    from toolkit.modalities.pixels import Changes, new_processor
    from toolkit.models.families import get_image_preset
    from toolkit.pretraining.masked_image import CollateMasked, masked_autoencoder, without_decoder

    run = ImageRun("vit-mae", arguments)
    preset = get_image_preset(arguments.preset, "vit")
    train_rows, validation_rows = run.load_unlabelled()
    size = arguments.image_size or preset.image_size
    processor = new_processor(size, run.some_of(train_rows))
    torch.manual_seed(arguments.seed)
    model = masked_autoencoder(preset.config(size), arguments.mask_ratio, arguments.decoder_layers)
    num_patches = model.vit.embeddings.patch_embeddings.num_patches
    collate, exact = (
        CollateMasked(processor, Changes(names, arguments.seed), num_patches) for names in (("flip", "shift"), ())
    )
    images, held_out = run.pixels(train_rows, validation_rows, processor)
    run.create_output_dir()
    return run.train(model, processor, images, held_out, collate, exact, item="image", result=without_decoder)


def pretrain_prototypical(arguments: PrototypicalArguments) -> dict[str, Any]:
    """An encoder that tells classes apart which it knows by a few images each."""
    import torch

    from toolkit.data.image_files import load_labelled_images
    from toolkit.modalities.pixels import Changes
    from toolkit.models.families import get_image_preset
    from toolkit.models.prototypical import PrototypicalConfig, PrototypicalForPreTraining
    from toolkit.pretraining.episodes_of_images import (
        CollateEpisodes,
        episodic_accuracy,
        images_of_classes,
        rows_of_classes,
    )
    from toolkit.transfer.encoders import SCRATCH, load_image_encoder

    run = ImageRun("prototypical", arguments)
    get_image_preset(arguments.preset)
    rows = run.sound(
        load_labelled_images(arguments.corpus, arguments.split, arguments.image_column, arguments.label_column)
    )
    torch.manual_seed(arguments.seed)
    encoder, processor = load_image_encoder(SCRATCH + arguments.preset, "AutoModel", arguments.image_size, rows)
    run.say("reading images")
    per_class = arguments.shots + arguments.queries
    images = images_of_classes(rows, processor, per_class)
    names = sorted(images)
    random.Random(0).shuffle(names)
    num_held_out = max(2, round(arguments.validation_fraction * len(names)))
    if len(names) - num_held_out < 2:
        raise InputError(f"{arguments.corpus}: {len(names)} labels, too few to learn from some and hold out others")
    model = PrototypicalForPreTraining(PrototypicalConfig(encoder=encoder.config.to_dict(), shots=arguments.shots))
    model.encoder = encoder
    changes = Changes(tuple(arguments.augment), arguments.seed)
    collate = CollateEpisodes(processor, images, per_class, arguments.seed, changes)
    exact = CollateEpisodes(processor, images, per_class, arguments.seed)
    classes = rows_of_classes(names[num_held_out:], arguments.rotations)
    held_out = rows_of_classes(names[:num_held_out], with_turns=False)

    def measure(model) -> dict[str, Any]:
        return {"accuracy": episodic_accuracy(model, held_out, exact, run.VALIDATION_BATCH_SIZE, run.accelerator)}

    run.create_output_dir()
    return run.train(
        model,
        processor,
        classes,
        held_out,
        collate,
        exact,
        item="image",
        result=lambda model: model.encoder,
        measure=measure,
    )


class ImageRun(Run):
    arguments: ImageCorpusArguments

    def load(self, load: Callable[[str | None], Any]) -> tuple[Any, Any]:
        """Images to train on and held-out ones, by a function of the name of a split; with `--streaming` a stream."""
        if self.arguments.streaming:
            return self.load_stream()
        from toolkit.data.image_files import splits_of_labelled_images

        train_rows = self.sound(load(self.arguments.split))
        if "validation" in splits_of_labelled_images(self.arguments.corpus):
            return train_rows, self.sound(load("validation"))
        return hold_out(train_rows.shuffle(seed=0), self.arguments.validation_fraction)

    def load_stream(self) -> tuple[ImageStream, Any]:
        """A stream of images to train on, and the first images of the validation split, or of the last file."""
        arguments = self.arguments
        files = files_of_stream(arguments.corpus, arguments.split)
        held_out = files_of_validation(arguments.corpus)
        if held_out is None:
            if len(files) < 2:
                raise InputError(
                    f"{arguments.corpus}: one file and no validation split; --streaming holds out one of several files"
                )
            *files, last = files
            held_out = [last]
        open_stream = partial(ImageStream, image_column=arguments.image_column, has_labels=False)
        if isinstance(arguments, ImageArguments):
            labels = {"label_column": arguments.label_column, "only": arguments.labels}
            open_stream = partial(open_stream, has_labels=True, **labels)
        self.say("counting images")
        stream = open_stream(files, seed=arguments.seed, buffer_size=arguments.shuffle_buffer)
        return stream, self.sound(open_stream(held_out).first(8 * self.VALIDATION_ROWS))

    def sound(self, rows):
        """The rows, without broken images where those are to be left out."""
        from toolkit.data.image_files import without_broken

        return without_broken(rows, self.say) if self.arguments.skip_broken else rows

    def load_unlabelled(self) -> tuple[Any, Any]:
        from toolkit.data.image_files import load_corpus_of_images

        return self.load(
            lambda split: load_corpus_of_images(self.arguments.corpus, split, self.arguments.image_column)
        )

    def pixels(self, train_rows, validation_rows, processor, label2id: dict[str, int] | None = None):
        """Both as rows of pixels, with ids of labels where there are any."""
        from toolkit.modalities.pixels import StreamedPixels, rows_of_pixels

        self.say("reading images")
        label2id = label2id or {}
        if isinstance(train_rows, ImageStream):
            train_pixels: Any = StreamedPixels(train_rows, processor, label2id, self.arguments.skip_broken)
        else:
            train_pixels = rows_of_pixels(train_rows, processor, label2id)
        return train_pixels, rows_of_pixels(validation_rows, processor, label2id)

    def some_of(self, rows):
        """Enough of the images to know what they look like."""
        from toolkit.modalities.pixels import NUM_MEASURED

        return self.sound(rows.first(NUM_MEASURED)) if isinstance(rows, ImageStream) else rows
