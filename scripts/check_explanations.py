#!/usr/bin/env python
"""Check importance maps by occlusion: cover the most important part of an image or a random part, compare the logits.

    python scripts/check_explanations.py FOLDER DATA RECORD [NUM_IMAGES]
    python scripts/check_explanations.py runs/cifar10/seed0 ../shared/data/cifar10 docs/results/explanations.json

For the first NUM_IMAGES (100) test images of DATA and each map of `toolkit explain`, the most important tenth of the
image is covered with the mean colour. A figure is the drop of the predicted label's logit, minus the mean drop under
ten random tenths, with its 95% bootstrap interval over images.

- squares: the most important squares of an eighth of the image's width, against random squares.
- pixels: the most important pixels, against random pixels, which are scattered.
- moved: the most important pixels, against the same shape shifted to random places, with wrap-around.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from toolkit.data.image_files import IMAGES
from toolkit.explain.saliency import importance_maps
from toolkit.metrics.intervals import ratio_interval
from toolkit.modalities import MODALITIES
from toolkit.modalities.pixels import some_pixel_values
from toolkit.runs.output import write_json
from toolkit.runs.results import made_with
from toolkit.transfer.encoders import load_encoder

FRACTION, NUM_RANDOM, SQUARES = 0.1, 10, 8  # squares per side


def tenth(scores: np.ndarray) -> np.ndarray:
    """1 at the tenth of the places where `scores` (N, N) is largest, and 0 elsewhere."""
    chosen = np.zeros(scores.size, dtype=np.float32)
    chosen[np.argsort(-scores.ravel(), kind="stable")[: round(FRACTION * scores.size)]] = 1
    return chosen.reshape(scores.shape)


def covered(pixels: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    """Cover `pixels` (1, 3, S, S) with the mean colour where `places` (N, N) is 1."""
    mask = torch.from_numpy(places)[None, None]
    return pixels * (1 - F.interpolate(mask, tuple(pixels.shape[2:]), mode="nearest"))


def moved(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift `places` (N, N) by a random number of rows and columns, with wrap-around."""
    return np.roll(places, rng.integers(1, len(places), 2), axis=(0, 1))


def main(folder: str, data: str, record: str, num_images: str = "100") -> None:
    model, processor = load_encoder(folder, "AutoModelForImageClassification", MODALITIES["image"])
    model.eval()
    rows = IMAGES.load_labelled(data, "test").select(range(int(num_images)))
    rng = np.random.default_rng(0)
    drops: dict[str, list[tuple[float, float]]] = {}
    for number, pixels in enumerate(some_pixel_values(rows, processor).split(1), start=1):
        with torch.no_grad():
            logits = model(pixel_values=pixels).logits[0]
        label = int(logits.argmax())

        def drop(places: np.ndarray, pixels=pixels, before=logits, label=label) -> float:
            with torch.no_grad():
                return float(before[label] - model(pixel_values=covered(pixels, places)).logits[0, label])

        sides = {"pixels": pixels.shape[2], "squares": SQUARES}
        chance = {
            unit: np.mean([drop(tenth(rng.random((side, side)))) for _ in range(NUM_RANDOM)])
            for unit, side in sides.items()
        }
        for name, values in importance_maps(model, pixels, label).items():
            for unit, side in sides.items():
                places = tenth(F.adaptive_avg_pool2d(torch.tensor(values)[None], side)[0].numpy())
                important = drop(places)
                drops.setdefault(f"{name}, {unit}", []).append((important, chance[unit]))
                if unit == "pixels":
                    elsewhere = np.mean([drop(moved(places, rng)) for _ in range(NUM_RANDOM)])
                    drops.setdefault(f"{name}, moved", []).append((important, elsewhere))
        if number % 10 == 0:
            print(f"{number} of {len(rows)} images", file=sys.stderr)
    figures = {}
    for name, pairs in drops.items():
        important, random = np.array(pairs).T
        ones = np.ones(len(pairs))
        figures[name] = ratio_interval(important - random, ones)
        figures[f"{name}, important"] = ratio_interval(important, ones)
        figures[f"{name}, random"] = ratio_interval(random, ones)
        print(name, {key: round(value, 3) for key, value in figures[name].items()})
    write_json(
        Path(record),
        {"folder": folder, "dataset": data, "n": len(rows), "metrics": figures, **made_with()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
