"""Prototypical networks: learn in episodes to tell classes apart that are known by a few images each.

Snell, Swersky & Zemel (2017), "Prototypical networks for few-shot learning", https://arxiv.org/abs/1703.05175.
"""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolkit.data.columns import LabelColumn
from toolkit.data.image_files import IMAGES
from toolkit.data.rows import content_of_rows
from toolkit.errors import InputError, check_positive
from toolkit.modalities.arguments import ImageChange
from toolkit.models.families import presets
from toolkit.pretraining.image_corpus import ImagePretrainingArguments, ImageSourceArguments, new_encoder
from toolkit.pretraining.media_corpus import load_split
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run, train_and_record
from toolkit.runs.arguments import Arguments, defaults, without
from toolkit.training.arguments import TrainingArguments
from toolkit.training.sampler import SampleKey

QUARTER_TURNS = 4


@dataclass(kw_only=True)
class ClassSourceArguments(ImageSourceArguments):
    validation_fraction: float = 0.1


@dataclass(kw_only=True)
class EpisodeArguments(Arguments):
    """episodes"""

    ways: int = 60
    """Classes per episode, over all processes; training with more ways than are used later works better.
    --gradient_accumulation_steps N divides them among N smaller episodes."""
    shots: int = 1
    """Labelled images (support set) per class."""
    queries: int = 4
    """Images to classify (query set) per class."""
    rotations: bool = False
    """Add three classes for every class, its images rotated by 90, 180 and 270 degrees, as is usual for characters."""
    augment: list[ImageChange] = field(default_factory=list)
    """Random changes to training images: flip (left to right), shift, zoom, rotate, color, trivial (TrivialAugment),
    erase (a rectangle) (default: none)."""

    def check(self) -> None:
        check_positive(self, "shots queries")
        if self.ways < 2:
            raise InputError(f"--ways {self.ways}: expected two or more")


@dataclass(kw_only=True)
class PrototypicalArguments(ImagePretrainingArguments):
    images: ClassSourceArguments = without("streaming", "shuffle_buffer")
    encoder: PresetArguments = defaults(PresetArguments, preset="resnet-fast")
    label: LabelColumn = defaults(LabelColumn)
    episodes: EpisodeArguments = defaults(EpisodeArguments)
    training: TrainingArguments = defaults(TrainingArguments, hidden=("batch_size",))

    def check(self) -> None:
        self.training = dataclasses.replace(self.training, batch_size=self.episodes.ways)


def pretrain_prototypical(arguments: PrototypicalArguments) -> dict[str, Any]:
    """Train any image encoder in episodes; returns the record."""
    import torch

    from toolkit.modalities.augmentation import Augmentation
    from toolkit.models.heads import freeze_unused, pool_image_features
    from toolkit.models.prototypical import PrototypicalConfig, PrototypicalForPreTraining

    run = Run("prototypical", arguments, presets("image"))
    source, flags, seed = arguments.images, arguments.episodes, arguments.training.seed
    opened = IMAGES.open_labelled(source.corpus, arguments.columns.image_column, arguments.label.label_column)
    rows = load_split(run, opened, source.split, IMAGES)
    opened.summary.add(source.split or "train", rows, rows["label"], content=content_of_rows(rows))
    run.describe_data(opened.summary)
    encoder, processor = new_encoder(run, rows)
    run.say("reading images")
    per_class = flags.shots + flags.queries
    images = images_of_classes(rows, processor, per_class)
    train_classes, held_out_classes = split_classes(source, list(images))
    model = PrototypicalForPreTraining(PrototypicalConfig(encoder=encoder.config.to_dict(), shots=flags.shots))
    model.encoder = encoder.eval()
    size = arguments.options.image_size or run.preset.default_size
    freeze_unused(encoder, pool_image_features(encoder(torch.zeros(1, 3, size, size))))
    exact = CollateEpisodes(processor, images, per_class, seed)
    collate = dataclasses.replace(exact, augmentation=Augmentation(tuple(flags.augment), seed))
    classes = rows_of_classes(train_classes, flags.rotations), rows_of_classes(held_out_classes, rotations=False)
    run.create_output_dir()
    options: Any = {"export": lambda model: model.encoder, "is_right": is_nearest, "item": "image", "row": "image"}
    return train_and_record(run, model, processor, classes, collate, exact, **options)


def images_of_classes(rows, processor, at_least: int) -> dict[str, Any]:
    """The images of each label, (images, 3, height, width) uint8. Raises `InputError` if a label has too few."""
    from toolkit.modalities.pixels import read_pixels, stack_pixels

    found: dict[str, list[dict[str, Any]]] = {}
    for label, pixels in zip(rows["label"][:], read_pixels(rows, processor), strict=True):
        found.setdefault(label, []).append(pixels)
    for label, images in found.items():
        if len(images) < at_least:
            raise InputError(
                f"the label {label} has {len(images)} images, fewer than the {at_least} that --shots and --queries ask"
            )
    return {label: stack_pixels(images) for label, images in found.items()}


def split_classes(source: ImageSourceArguments, names: list[str]) -> tuple[list[str], list[str]]:
    """Classes to train on and held-out ones. Raises `InputError` if there are too few."""
    names = sorted(names)
    random.Random(0).shuffle(names)
    num_held_out = max(2, round(source.validation_fraction * len(names)))
    if len(names) - num_held_out < 2:
        raise InputError(f"{source.corpus}: {len(names)} labels, too few to learn from some and hold out others")
    return names[num_held_out:], names[:num_held_out]


def rows_of_classes(classes: Sequence[str], rotations: bool):
    """A data set with one row per class, and with rotations three more: `class` and `turns`, the quarter turns."""
    import datasets

    turns = range(QUARTER_TURNS if rotations else 1)
    return datasets.Dataset.from_list([{"class": name, "turns": turn} for turn in turns for name in classes])


@dataclass(frozen=True)
class CollateEpisodes:
    """Collates rows of `rows_of_classes` to one episode of all these classes."""

    processor: Any
    images: dict[str, Any]  # of each class, (images, 3, height, width) uint8
    per_class: int  # images of each class; which ones depends on the sample key
    seed: int  # of the run
    augmentation: Any = None  # Augmentation; None for evaluation

    def __call__(self, rows: list[dict], keys: Sequence[SampleKey]) -> dict[str, Any]:
        import torch

        from toolkit.modalities.pixels import PixelProcessor

        of_classes = []
        for row, key in zip(rows, keys, strict=True):
            images = self.images[row["class"]]
            places = np.random.default_rng(key.seed(self.seed)).permutation(len(images))[: self.per_class]
            pixels = torch.rot90(images[places], row["turns"], dims=(2, 3))
            if self.augmentation is not None:
                first = key.index * self.per_class
                image_keys = [dataclasses.replace(key, index=first + n) for n in range(self.per_class)]
                pixels = self.augmentation(pixels, image_keys)
            of_classes.append(pixels)
        pixels = torch.stack(of_classes)  # (classes, per_class, 3, height, width)
        pixel_values = PixelProcessor(self.processor).normalize(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        return {
            "pixel_values": pixel_values,
            "is_filler": not keys[0].counts,
            "num_targets": len(rows),
            "num_items": len(rows) * self.per_class,
        }


def is_nearest(logits, batch: dict[str, Any]):
    """Whether each query image of an episode is nearest to the prototype of its class, (1, queries) bool."""
    import torch

    labels = torch.arange(logits.shape[1], device=logits.device)
    return (logits.argmax(dim=1) == labels.repeat_interleave(len(logits) // len(labels))).unsqueeze(0)


METHOD = Method(PrototypicalArguments, pretrain_prototypical)
