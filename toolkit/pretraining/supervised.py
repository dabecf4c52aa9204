"""Supervised pretraining of an image encoder: learn to tell labels apart, then transfer to other labels."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.data.columns import ChosenLabels, LabelColumn
from toolkit.data.image_files import IMAGES
from toolkit.data.table_files import order_of_label
from toolkit.errors import InputError
from toolkit.modalities.arguments import AugmentationArguments, ImageEncoderArguments
from toolkit.pretraining.image_corpus import ImagePretrainingArguments, load_images, new_encoder, train_on_images
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run
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


def pretrain_on_labels(family: str, arguments: SupervisedArguments) -> dict[str, Any]:
    """Train an image classifier of a family on labelled images; returns the record."""
    from toolkit.modalities.image_batches import CollateImages
    from toolkit.modalities.losses import set_loss, weights_of_classes

    run, flags = Run(family, arguments), arguments.augmentation
    corpus, label_column, chosen = arguments.images.corpus, arguments.label.label_column, arguments.chosen.labels
    if arguments.images.streaming:
        rows = load_images(run, None, label_column=label_column, only=chosen)
        counts, declared = rows[0].labels, rows[0].declared_labels
    else:
        source = IMAGES.open_labelled(corpus, arguments.columns.image_column, label_column, chosen)
        rows = load_images(run, source)
        counts, declared = Counter(rows[0]["label"]), source.declared_labels()
    declared = declared or ()
    labels = check_labels(corpus, [*declared, *sorted(counts.keys() - set(declared), key=order_of_label)])
    label2id = {label: i for i, label in enumerate(labels)}
    model, processor = new_encoder(
        run, rows[0], "AutoModelForImageClassification", id2label=dict(enumerate(labels)), label2id=label2id
    )
    set_loss(model, flags.label_smoothing, weights_of_classes(counts, labels) if flags.class_weights else None)
    collate = CollateImages.for_training(processor, flags, arguments.training.seed)
    exact = CollateImages(processor)

    def is_right(logits, batch: dict[str, Any]):
        return (logits.argmax(dim=-1) == batch["labels"]).unsqueeze(1)

    return train_on_images(run, model, processor, rows, collate, exact, label2id, is_right=is_right)


def check_labels(source: str, labels: list[str]) -> list[str]:
    """The labels. Raises `InputError` if there are fewer than two."""
    if not labels:
        raise InputError(f"{source}: there is no image of a label that is asked for")
    if len(labels) < 2:
        raise InputError(f"{source}: the only label is {labels[0]}, expected two or more")
    return labels


def _method_of(family: str, preset: str) -> Method:
    """The method that trains a family, by default this preset."""

    @dataclass(kw_only=True)
    class OfFamily(SupervisedArguments):
        encoder: PresetArguments = defaults(PresetArguments, preset=preset)

    return Method(OfFamily, partial(pretrain_on_labels, family))


RESNET = _method_of("resnet", "resnet-mini")
GOOGLENET = _method_of("googlenet", "googlenet-mini")
LENET = _method_of("lenet", "lenet-5")
VIT = _method_of("vit", "vit-mini")
MLP = _method_of("mlp", "mlp-mini")
