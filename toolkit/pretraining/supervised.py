"""Labels of images as what a network learns from: batches, and the loss where labels do not count alike."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn import functional as F

from toolkit.metrics.intervals import Interval, ratio_interval
from toolkit.modalities.pixels import Changes, Pixels, stacked
from toolkit.training.batches import Draw
from toolkit.training.distributed import gather_objects
from toolkit.training.evaluation import evaluation_batches

FULL_SIZE_FROM = 0.75  # of the run, where images start smaller
SIZE_STEP = 4  # pixels by which they grow


@dataclass(frozen=True)
class CollateImages:
    """Rows with `pixels`, `height`, `width` and `label` to a batch; changed at random by `changes`, if there are any.

    With `size_start`, images grow from that size to their own while training goes on. Of images of several sizes
    `pixel_values` is a list.
    """

    processor: Any
    changes: Changes | None = None
    size_start: int | None = None

    @classmethod
    def to_train(cls, processor, arguments) -> "CollateImages":
        """As the flags of images say, `toolkit.pretraining.arguments.ImageArguments`."""
        changes = Changes(tuple(arguments.augment), arguments.seed, arguments.max_shift)
        return cls(processor, changes, arguments.image_size_start)

    def __call__(self, rows: list[dict], draws: Sequence[Draw]) -> dict[str, Any]:
        of_size: dict[tuple[int, int], list[int]] = {}
        for place, row in enumerate(rows):
            of_size.setdefault((row["height"], row["width"]), []).append(place)
        pixel_values: Any = [None] * len(rows)
        for places in of_size.values():
            part = self._pixel_values([rows[place] for place in places], [draws[place] for place in places])
            for place, image in zip(places, part, strict=True):
                pixel_values[place] = image
        labels = [row["label"] for row in rows]
        return {
            "pixel_values": part if len(of_size) == 1 else pixel_values,
            "labels": torch.tensor(labels),
            "num_targets": sum(label >= 0 for label in labels),
            "num_items": len(rows),
        }

    def _pixel_values(self, rows: list[dict], draws: Sequence[Draw]) -> torch.Tensor:
        """Of images of one size."""
        pixels = stacked(rows)
        if self.changes is not None:
            pixels = self.changes(pixels, draws)
        if self.size_start is not None:
            size = [self._size_at(draws[0].progress, full) for full in pixels.shape[2:]]
            if size != list(pixels.shape[2:]):
                pixels = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
        return Pixels(self.processor).normalise(pixels)

    def _size_at(self, progress: float, full: int) -> int:
        assert self.size_start is not None
        steps = max(0, full - self.size_start) / SIZE_STEP
        return min(full, self.size_start + SIZE_STEP * int(steps * progress / FULL_SIZE_FROM))


@torch.no_grad()
def held_out_accuracy(model, rows, collate: CollateImages, batch_size: int, accelerator: Accelerator) -> Interval:
    """The share of the rows whose label the model gives the highest logit; all processes get it."""
    hits: list[bool] = []
    for batch in evaluation_batches(rows, collate, batch_size, accelerator, in_step=True):
        right = model(pixel_values=batch["pixel_values"]).logits.argmax(dim=-1) == batch["labels"]
        hits += right.tolist() if batch["num_items"] else []
    hits = gather_objects(accelerator, hits)
    return ratio_interval(hits, [1] * len(hits))


def set_loss(model, label_smoothing: float, weights: Sequence[float] | None) -> None:
    """Let the model's loss be the cross-entropy with smoothed labels, or of labels that count as `weights` say."""
    weight = None if weights is None else torch.tensor(weights)
    model.loss_function = partial(_cross_entropy, label_smoothing=label_smoothing, weight=weight)


def _cross_entropy(labels, logits, config, label_smoothing: float, weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    losses = F.cross_entropy(logits, labels, weight.to(logits), label_smoothing=label_smoothing, reduction="sum")
    return losses / (labels >= 0).sum()


def weights_of(counts: Counter[str], names: Sequence[str]) -> list[float]:
    """One number a name, so that each label counts the same in all, and the mean over all that were counted is 1."""
    return [counts.total() / (len(names) * counts[name]) for name in names]
