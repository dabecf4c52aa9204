#!/usr/bin/env python
"""Make images to pretrain a small encoder on, from what a dependency installs and from formulas alone.

python scripts/make_surrogate_images.py OUTPUT_DIR

OUTPUT_DIR gets a folder of images for each class:

- the digits 0 to 4 of scikit-learn (5 to 9 are kept for tests);
- patches of the two photographs of scikit-learn: all that are cut near one place are a class, as in Dosovitskiy,
  Springenberg, Riedmiller & Brox (2014), "Discriminative unsupervised feature learning with convolutional neural
  networks", https://arxiv.org/abs/1406.6909;
- fractals: all of one system of affine maps, a little changed, are a class, as in Kataoka et al. (2020), "Pre-training
  without natural images", https://arxiv.org/abs/2101.08515.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

SIDE = 48  # pixels
NUM_DIGITS = 5
EVERY, PATCHES, LARGEST_MOVE, SCALES = 53, 40, 10, (40, 90)  # of the photographs, in pixels
SYSTEMS, FRACTALS, POINTS, CHANGE = 100, 40, 4000, 0.12


def digits() -> Iterator[tuple[str, np.ndarray]]:
    found = load_digits()
    for image, target in zip(found.images, found.target, strict=True):
        if target < NUM_DIGITS:
            yield f"digit {target}", (image * 255 / 16).astype(np.uint8)[..., None].repeat(3, axis=2)


def patches(random: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    for photograph, image in enumerate(load_sample_images().images):
        height, width, _ = image.shape
        for top in range(EVERY, height - EVERY, EVERY):
            for left in range(EVERY, width - EVERY, EVERY):
                for _ in range(PATCHES):
                    half = int(random.integers(*SCALES)) // 2
                    y, x = (np.array([top, left]) + random.integers(-LARGEST_MOVE, LARGEST_MOVE + 1, 2)).tolist()
                    y, x = np.clip(y, half, height - half), np.clip(x, half, width - half)
                    yield f"photograph {photograph} {top} {left}", image[y - half : y + half, x - half : x + half]


def fractals(random: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    for system in range(SYSTEMS):
        maps, shifts, colors = _new_system(random)
        for _ in range(FRACTALS):
            changed = maps * random.uniform(1 - CHANGE, 1 + CHANGE, maps.shape)
            yield f"fractal {system}", _draw(changed, shifts, colors, random)


def _new_system(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two to four contracting affine maps of the plane, and a color for each."""
    count = int(random.integers(2, 5))
    maps = random.uniform(-1, 1, (count, 2, 2))
    maps *= 0.75 / np.linalg.norm(maps, ord=2, axis=(1, 2), keepdims=True)
    return maps, random.uniform(-1, 1, (count, 2)), random.uniform(60, 255, (count, 3))


def _draw(maps: np.ndarray, shifts: np.ndarray, colors: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The points that the maps, chosen at random one after the other, lead to."""
    points = np.zeros((POINTS // 20, 2))
    image = np.full((SIDE, SIDE, 3), random.uniform(0, 50, 3))
    seen, chosen_maps = [], []
    for step in range(40):
        chosen = random.integers(len(maps), size=len(points))
        points = np.einsum("nij,nj->ni", maps[chosen], points) + shifts[chosen]
        if step >= 20:
            seen.append(points)
            chosen_maps.append(chosen)
    all_points, all_maps = np.concatenate(seen), np.concatenate(chosen_maps)
    low, high = all_points.min(axis=0), all_points.max(axis=0)
    places = ((all_points - low) / np.maximum(high - low, 1e-6) * (SIDE - 1)).astype(int)
    image[places[:, 1], places[:, 0]] = colors[all_maps]
    return image.astype(np.uint8)


def main(output: Path) -> None:
    random = np.random.default_rng(0)
    counts: dict[str, int] = {}
    for source in (digits(), patches(random), fractals(random)):
        for name, image in source:
            counts[name] = counts.get(name, 0) + 1
            (output / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(
                output / name / f"{counts[name]}.png"
            )
    print(f"{output}: {sum(counts.values()):,} images of {len(counts)} classes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
