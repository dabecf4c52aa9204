"""Supervised pretraining of an image encoder: learn to tell labels apart, then transfer to other labels."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.data.columns import ChosenLabels, LabelColumn
from toolkit.data.image_files import load_labelled_images
from toolkit.data.image_stream import ImageStream
from toolkit.errors import InputError
from toolkit.modalities.arguments import AugmentationArguments, ImageEncoderArguments
from toolkit.pretraining.image_corpus import (
    ImagePretrainingArguments,
    encode_pixels,
    images_to_measure,
    load_images,
    train_on_images,
)
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import VALIDATION_BATCH_SIZE, Run
from toolkit.pretraining.text_corpus import find_preset
from toolkit.runs.arguments import defaults


@dataclass(kw_only=True)
class SupervisedArguments(ImagePretrainingArguments):
    options: ImageEncoderArguments = defaults(ImageEncoderArguments)
    label: LabelColumn = defaults(LabelColumn)
    chosen: ChosenLabels = defaults(ChosenLabels)
    augmentation: AugmentationArguments = defaults(AugmentationArguments)

    def check(self) -> None:
        if self.options.keep_size and self.augmentation.image_size_start:
            raise InputError("--keep_size: does not go with --image_size_start")


@dataclass(kw_only=True)
class ResNetArguments(SupervisedArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="resnet-mini")


@dataclass(kw_only=True)
class GoogLeNetArguments(SupervisedArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="googlenet-mini")


@dataclass(kw_only=True)
class LeNetArguments(SupervisedArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="lenet-5")


@dataclass(kw_only=True)
class ViTArguments(SupervisedArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="vit-mini")


@dataclass(kw_only=True)
class MlpArguments(SupervisedArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="mlp-mini")


def pretrain_on_labels(family: str, arguments: SupervisedArguments) -> dict[str, Any]:
    """Train an image classifier of a family on labelled images; returns the record."""
    import torch

    from toolkit.modalities import MODALITIES
    from toolkit.modalities.image_batches import CollateImages, set_loss, weights_of_classes
    from toolkit.models.families import SCRATCH
    from toolkit.transfer.encoders import load_encoder

    find_preset(arguments.encoder.preset, family)
    run = Run(family, arguments, arguments.training.resume)
    rows = load_labelled(arguments, run)
    counts = rows[0].labels if isinstance(rows[0], ImageStream) else Counter(rows[0]["label"])
    labels = check_labels(arguments.images.corpus, counts)
    label2id = {label: i for i, label in enumerate(labels)}
    torch.manual_seed(arguments.training.seed)
    model, processor = load_encoder(
        SCRATCH + arguments.encoder.preset,
        "AutoModelForImageClassification",
        MODALITIES["image"],
        arguments.options,
        images_to_measure(rows[0], arguments, run),
        id2label=dict(enumerate(labels)),
        label2id=label2id,
    )
    flags = arguments.augmentation
    set_loss(model, flags.label_smoothing, weights_of_classes(counts, labels) if flags.class_weights else None)
    encoded = encode_pixels(rows, processor, arguments, run, label2id)
    collate = CollateImages.for_training(processor, flags, arguments.training.seed)
    exact = CollateImages(processor)

    def measure(model) -> dict[str, Any]:
        return {"accuracy": held_out_accuracy(model, encoded[1], exact, VALIDATION_BATCH_SIZE, run.accelerator)}

    run.create_output_dir()
    return train_on_images(
        run, model, processor, encoded, collate, exact, measure=measure, dataset=arguments.images.corpus
    )


def load_labelled(arguments: SupervisedArguments, run: Run) -> tuple[Any, Any]:
    """Labelled images to train on and held-out ones."""
    label_column, labels = arguments.label.label_column, arguments.chosen.labels

    def load(split: str | None):
        column = arguments.columns.image_column
        return load_labelled_images(arguments.images.corpus, split, column, label_column, labels)

    return load_images(arguments, run, load, label_column=label_column, only=labels)


def check_labels(source: str, counts: Counter[str]) -> list[str]:
    """The labels, sorted. Raises `InputError` if there are fewer than two."""
    labels = sorted(counts)
    if not labels:
        raise InputError(f"{source}: there is no image of a label that is asked for")
    if len(labels) < 2:
        raise InputError(f"{source}: the only label is {labels[0]}, expected two or more")
    return labels


def held_out_accuracy(model, rows, collate, batch_size: int, accelerator) -> dict[str, float]:
    """The fraction of rows whose label gets the highest logit, with its interval; the same on all processes."""
    import torch
    from accelerate.utils import gather_object

    from toolkit.metrics.intervals import ratio_interval
    from toolkit.training.evaluation import evaluation_batches

    hits: list[bool] = []
    with torch.no_grad():
        for batch in evaluation_batches(rows, collate, batch_size, accelerator, lockstep=True):
            right = model(pixel_values=batch["pixel_values"]).logits.argmax(dim=-1) == batch["labels"]
            hits += right.tolist() if batch["num_items"] else []
    hits = gather_object(hits)
    return ratio_interval(hits, [1] * len(hits))


RESNET = Method(ResNetArguments, partial(pretrain_on_labels, "resnet"))
GOOGLENET = Method(GoogLeNetArguments, partial(pretrain_on_labels, "googlenet"))
LENET = Method(LeNetArguments, partial(pretrain_on_labels, "lenet"))
VIT = Method(ViTArguments, partial(pretrain_on_labels, "vit"))
MLP = Method(MlpArguments, partial(pretrain_on_labels, "mlp"))
