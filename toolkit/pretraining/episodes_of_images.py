"""Episodes of images to learn from: batches for `toolkit.models.prototypical`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch

from toolkit.errors import InputError
from toolkit.metrics.intervals import Interval, ratio_interval
from toolkit.modalities.pixels import Changes, Pixels, pixels_of, stacked
from toolkit.training.batches import Draw, seed_of
from toolkit.training.distributed import gather_objects
from toolkit.training.evaluation import evaluation_batches

QUARTER_TURNS = 4


@dataclass(frozen=True)
class CollateEpisodes:
    """Rows with a `class` and `turns`, quarters of a turn that make another class of it, to an episode of them all.

    Which `per_class` images of a class there are follows from its draw.
    """

    processor: Any
    images: dict[str, torch.Tensor]  # of each class (images, 3, height, width), bytes
    per_class: int
    seed: int
    changes: Changes | None = None

    def __call__(self, rows: list[dict], draws: Sequence[Draw]) -> dict[str, Any]:
        of_classes = []
        for row, draw in zip(rows, draws, strict=True):
            images = self.images[row["class"]]
            places = np.random.default_rng(seed_of(self.seed, draw)).permutation(len(images))[: self.per_class]
            pixels = torch.rot90(images[places], row["turns"], dims=(2, 3))
            if self.changes is not None:
                one_each = [draw._replace(example=draw.example * self.per_class + n) for n in range(self.per_class)]
                pixels = self.changes(pixels, one_each)
            of_classes.append(pixels)
        pixels = torch.stack(of_classes)
        return {
            "pixel_values": Pixels(self.processor).normalise(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]),
            "num_targets": len(rows),
            "num_items": len(rows) * self.per_class,
        }


def images_of_classes(rows, processor, at_least: int) -> dict[str, torch.Tensor]:
    """Of labelled images those of each label. Raises `InputError` where a label has fewer than that."""
    places: dict[str, list[dict[str, Any]]] = {}
    for label, pixels in zip(rows["label"][:], pixels_of(rows, processor), strict=True):
        places.setdefault(label, []).append(pixels)
    for label, found in places.items():
        if len(found) < at_least:
            raise InputError(
                f"the label {label} has {len(found)} images, fewer than the {at_least} that --shots and --queries ask"
            )
    return {label: stacked(found) for label, found in places.items()}


def rows_of_classes(classes: Sequence[str], with_turns: bool) -> datasets.Dataset:
    """A row a class, and with turns one more for each turn of a quarter."""
    turns = range(QUARTER_TURNS if with_turns else 1)
    return datasets.Dataset.from_list([{"class": name, "turns": turn} for turn in turns for name in classes])


@torch.no_grad()
def episodic_accuracy(model, rows, collate: CollateEpisodes, ways: int, accelerator) -> Interval:
    """The share of the queries that lie nearest to the prototype of their class, of episodes of that many classes."""
    hits: list[tuple[int, int]] = []
    for batch in evaluation_batches(rows, collate, ways, accelerator, in_step=True):
        logits = model(pixel_values=batch["pixel_values"]).logits
        labels = torch.arange(logits.shape[1], device=logits.device)
        right = logits.argmax(dim=1) == labels.repeat_interleave(len(logits) // len(labels))
        hits += [(int(right.sum()), len(right))] if batch["num_items"] else []
    right, totals = zip(*gather_objects(accelerator, hits), strict=True)
    return ratio_interval(right, totals)
