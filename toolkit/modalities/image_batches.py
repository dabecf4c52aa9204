"""Batches of encoded images: collation and progressive resizing.

Shape legend: N images, S height and width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch.nn import functional as F

from toolkit.modalities.arguments import AugmentationArguments
from toolkit.modalities.augmentation import Augmentation
from toolkit.modalities.pixels import PixelProcessor, stack_pixels
from toolkit.training.sampler import SampleKey

FULL_SIZE_FROM = 0.75  # progress of the run from which images have their full size
SIZE_STEP = 4  # pixels by which images grow at a time


@dataclass(frozen=True)
class CollateImages:
    """Collates encoded images with `label`. The `pixel_values` of images of several sizes are a list."""

    processor: Any
    augmentation: Augmentation | None = None  # None for evaluation
    size_start: int | None = None  # at the start of the run, for progressive resizing

    @classmethod
    def for_training(cls, processor, flags: AugmentationArguments, seed: int) -> "CollateImages":
        augmentation = Augmentation(tuple(flags.augment), seed, flags.max_shift)
        return cls(processor, augmentation, flags.image_size_start)

    def __call__(self, rows: list[dict], keys: Sequence[SampleKey]) -> dict[str, Any]:
        labels = [row["label"] for row in rows]
        return {
            "pixel_values": pixel_values_of(list(zip(rows, keys, strict=True)), self._pixel_values),
            "labels": torch.tensor(labels),
            "num_targets": sum(label >= 0 for label in labels),
            "num_items": len(rows),
        }

    def _pixel_values(self, samples: list[tuple[dict, SampleKey]]) -> torch.Tensor:
        """(N, 3, S, S) of images of one size."""
        keys = [key for _, key in samples]
        pixels = stack_pixels([row for row, _ in samples])
        if self.augmentation is not None:
            pixels = self.augmentation(pixels, keys)
        if self.size_start is not None:
            size = [self._size_at(keys[0].progress, full) for full in pixels.shape[2:]]
            if size != list(pixels.shape[2:]):
                pixels = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
        return PixelProcessor(self.processor).normalize(pixels)

    def _size_at(self, progress: float, full: int) -> int:
        assert self.size_start is not None
        steps = max(0, full - self.size_start) / SIZE_STEP
        return min(full, self.size_start + SIZE_STEP * int(steps * progress / FULL_SIZE_FROM))


def pixel_values_of(
    samples: Sequence[tuple[dict, Any]], convert: Callable[[list[Any]], torch.Tensor]
) -> torch.Tensor | list[torch.Tensor]:
    """The pixel values of encoded images with their keys: one tensor, or a list if they have several sizes.

    `convert` makes a tensor (N, 3, S, S) of images of one size.
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, (row, _) in enumerate(samples):
        by_size.setdefault((row["height"], row["width"]), []).append(index)
    parts = [convert([samples[index] for index in indices]) for indices in by_size.values()]
    if len(parts) == 1:
        return parts[0]
    positions = [index for indices in by_size.values() for index in indices]
    images = dict(zip(positions, chain.from_iterable(parts), strict=True))
    return [images[index] for index in range(len(samples))]
