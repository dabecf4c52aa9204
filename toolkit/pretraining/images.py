"""Pretraining on images with labels, of whatever network there is a preset of."""

from typing import Any

from toolkit.data.rows import hold_out
from toolkit.errors import InputError
from toolkit.pretraining.arguments import ResNetArguments
from toolkit.pretraining.base import Run


def pretrain_on_labels(method: str, arguments: ResNetArguments) -> dict[str, Any]:
    """An image classifier, whose encoder has learned to see what tells the labels apart."""
    import torch

    from toolkit.data.image import load_labelled_images, splits_of_labelled_images, without_broken
    from toolkit.encoders import SCRATCH, load_image_encoder
    from toolkit.images import rows_of_pixels
    from toolkit.objectives.supervised import CollateImages, held_out_accuracy, set_loss, weights_of
    from toolkit.presets import get_image_preset

    run = Run(method, arguments)
    get_image_preset(arguments.preset, method)

    def load(split: str | None):
        columns = arguments.image_column, arguments.label_column
        rows = load_labelled_images(arguments.corpus, split, *columns, arguments.labels)
        return without_broken(rows, run.say) if arguments.skip_broken else rows

    train_rows = load(arguments.split)
    if "validation" in splits_of_labelled_images(arguments.corpus):
        validation_rows = load("validation")
    else:
        train_rows, validation_rows = hold_out(train_rows.shuffle(seed=0), arguments.validation_fraction)
    labels = sorted(set(train_rows["label"]))
    if len(labels) < 2:
        raise InputError(f"{arguments.corpus}: the only label is {labels[0]}, expected two or more")
    label2id = {label: i for i, label in enumerate(labels)}
    torch.manual_seed(arguments.seed)
    model, processor = load_image_encoder(
        SCRATCH + arguments.preset,
        "AutoModelForImageClassification",
        arguments.image_size,
        train_rows,
        id2label=dict(enumerate(labels)),
        label2id=label2id,
    )
    weights = weights_of(train_rows["label"][:], labels) if arguments.class_weights else None
    set_loss(model, arguments.label_smoothing, weights)
    run.say("reading images")
    images, held_out = (rows_of_pixels(rows, processor, label2id) for rows in (train_rows, validation_rows))
    collate, exact = CollateImages.to_train(processor, arguments), CollateImages(processor)

    def measure(model) -> dict[str, Any]:
        return {"accuracy": held_out_accuracy(model, held_out, exact, run.VALIDATION_BATCH_SIZE, run.accelerator)}

    run.create_output_dir()
    return run.train(model, processor, images, held_out, collate, exact, item="image", measure=measure)
