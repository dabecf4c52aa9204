"""Random changes of images, determined by the key of each sample, and the two views of contrastive learning.

TrivialAugment is of Müller & Hutter (2021), https://arxiv.org/abs/2103.10158; random erasing of Zhong, Zheng, Kang, Li
& Yang (2020), https://arxiv.org/abs/1708.04896; alternating flips of Jordan (2024), https://arxiv.org/abs/2404.00498;
the two views of an image are those of SimCLR, Chen, Kornblith, Norouzi & Hinton (2020),
https://arxiv.org/abs/2002.05709.

Shape legend: N images, S height and width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from toolkit.errors import extra
from toolkit.training.sampler import SampleKey, seed_torch

with extra("images"):
    from torchvision.transforms import v2

_BILINEAR = v2.InterpolationMode.BILINEAR
_TRANSFORMS: dict[str, Callable[[tuple[int, int]], v2.Transform]] = {  # by name, from the size of the images
    "zoom": lambda size: v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True),
    "rotate": lambda size: v2.RandomRotation(15, interpolation=_BILINEAR),
    "color": lambda size: v2.ColorJitter(0.3, 0.3, 0.3),
    "trivial": lambda size: v2.TrivialAugmentWide(interpolation=_BILINEAR),
    "erase": lambda size: v2.RandomErasing(0.25),
}


@dataclass(frozen=True)
class Augmentation:
    """Changes a batch of images at random: flips and shifts the whole batch at once, the others image by image.

    `flip` mirrors an image in every second epoch, the odd epochs for half of the images and the even ones for the
    others. `shift` moves an image by at most the fraction `max_shift` of its size (at least one pixel); beyond the
    edge it is continued by its mirror image.
    """

    names: Sequence[str]
    seed: int
    max_shift: float = 0.125

    def __call__(self, pixels: torch.Tensor, keys: Sequence[SampleKey]) -> torch.Tensor:
        """`pixels` (N, 3, S, S) uint8 -> the same shape."""
        size = pixels.shape[2], pixels.shape[3]
        if "flip" in self.names or "shift" in self.names:
            pixels = self._flip_and_shift(pixels, keys)
        one_by_one = [_TRANSFORMS[name](size) for name in self.names if name in _TRANSFORMS]
        if not one_by_one:
            return pixels
        transform, transformed = v2.Compose(one_by_one), []
        with torch.random.fork_rng(devices=()):
            for image, key in zip(pixels, keys, strict=True):
                seed_torch(*key.seed(self.seed), cpu_only=True)
                transformed.append(transform(image))
        return torch.stack(transformed)

    def _flip_and_shift(self, pixels: torch.Tensor, keys: Sequence[SampleKey]) -> torch.Tensor:
        height, width = pixels.shape[2:]
        furthest = max(1, int(max(height, width) * self.max_shift))
        is_flipped = np.zeros((len(keys), 1), dtype=bool)
        shifts = np.zeros((len(keys), 2), dtype=np.int64)  # pixels by which each image moves down and right
        for number, key in enumerate(keys):
            if "flip" in self.names:
                first = np.random.default_rng((self.seed, key.index)).integers(2)
                is_flipped[number] = (first + key.epoch) % 2 == 0
            if "shift" in self.names:
                shifts[number] = np.random.default_rng(key.seed(self.seed)).integers(-furthest, furthest + 1, 2)
        rows, columns = _reflect(height, shifts[:, :1]), _reflect(width, shifts[:, 1:])
        columns = np.where(is_flipped, width - 1 - columns, columns)
        images, channels = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
        indices = images[..., None, None], channels[..., None, None], rows[:, None, :, None], columns[:, None, None, :]
        return torch.from_numpy(pixels.numpy()[indices])


def _reflect(size: int, shifts: np.ndarray) -> np.ndarray:
    """The positions (N, size) from which pixels move by `shifts` (N, 1), mirrored at the first and the last one."""
    return size - 1 - np.abs(size - 1 - np.abs(np.arange(size) - shifts))


@dataclass(frozen=True)
class ContrastiveViews:
    """Two random views of each image: a crop resized to the whole, mirrored in half of the cases, with its colours
    changed or removed. The whole batch is changed at once, which is many times faster than image by image."""

    seed: int
    min_crop: float = 0.2  # smallest fraction of the image that a crop keeps
    color_strength: float = 0.5  # from 0 to 1
    RANDOM_NUMBERS: ClassVar[int] = 11  # per view

    def __call__(self, pixels: torch.Tensor, keys: Sequence[SampleKey]) -> torch.Tensor:
        """`pixels` (N, 3, S, S) uint8 -> (2N, 3, S, S) float from 0 to 255: all first views, then all second views."""
        generators = [np.random.default_rng(key.seed(self.seed)) for key in keys]
        numbers = np.stack([generator.random((2, self.RANDOM_NUMBERS)) for generator in generators])
        uniform = torch.from_numpy(numbers).float()
        return torch.cat([self._view(pixels.float(), *uniform[:, view].T) for view in range(2)])

    def _view(self, pixels: torch.Tensor, area, ratio, down, right, flip, keep, grey, *colors) -> torch.Tensor:
        """One view of each image; all further arguments are (N,) uniform random numbers from 0 to 1."""
        area = self.min_crop + (1 - self.min_crop) * area
        ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))
        height, width = ((area * r).sqrt().clamp(max=1) for r in (1 / ratio, ratio))
        matrix = torch.zeros(len(pixels), 2, 3)
        matrix[:, 0, 0] = torch.where(flip < 0.5, -width, width)
        matrix[:, 1, 1] = height
        matrix[:, 0, 2], matrix[:, 1, 2] = (1 - width) * (2 * right - 1), (1 - height) * (2 * down - 1)
        grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
        crops = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
        strength = self.color_strength * (keep >= 0.2)
        brightness, contrast, saturation, hue = (strength * (2 * c - 1) for c in colors)
        saturation = (1 + 0.8 * saturation) * (grey >= 0.2)
        return adjust_colors(crops, 1 + 0.8 * brightness, 1 + 0.8 * contrast, saturation, 0.2 * hue)


def adjust_colors(pixels: torch.Tensor, brightness, contrast, saturation, hue) -> torch.Tensor:
    """Adjust the colours of images (N, 3, S, S), from 0 to 255, in the YIQ colour space.

    Brightness, contrast and saturation are factors (N,), and hue is its rotation as a fraction of a whole turn (N,).
    """
    to_luma = pixels.new_tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # YIQ
    cosine, sine = torch.cos(2 * torch.pi * hue), torch.sin(2 * torch.pi * hue)
    turn = pixels.new_zeros(len(pixels), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cosine, -sine, sine, cosine
    turn[:, 1:] *= saturation[:, None, None]
    change = (brightness * contrast)[:, None, None] * (torch.linalg.inv(to_luma) @ turn @ to_luma)
    mean = brightness * (1 - contrast) * (pixels.mean(dim=(2, 3)) @ to_luma[0])
    changed = torch.baddbmm(mean[:, None, None], change, pixels.flatten(2)).clamp(0, 255)
    return changed.view_as(pixels)


def shift_image(pixels: torch.Tensor, by: int) -> torch.Tensor:
    """Move images (N, 3, S, S) down and right by `by` 32nds of their size, continued by their mirror image."""
    height, width = pixels.shape[2:]
    unit = max(1, max(height, width) // 32)
    wider = F.pad(pixels, (unit * abs(by),) * 4, mode="reflect")
    start = unit * (abs(by) - by)
    return wider[..., start : start + height, start : start + width]
