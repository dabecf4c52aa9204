#!/usr/bin/env python
"""Draw the pictures of docs/convolution.md.

    python scripts/convolution.py kernels OUT.png [IMAGE]
    python scripts/convolution.py pooling OUT.png [IMAGE]
    python scripts/convolution.py parameters OUT.png
    python scripts/convolution.py subset DATA FOLDER
    python scripts/convolution.py network DEPTH yes|no FOLDER
    python scripts/convolution.py depth OUT.png RUNS/DEPTH-yes-SEED… RUNS/DEPTH-no-SEED…
    python scripts/convolution.py filters OUT.png FOLDER

The default IMAGE is a photograph that comes with scikit-learn (china.jpg, by Daniel Buechele, CC BY 2.0). `subset`
writes 10,000 training, 1,000 validation and 2,000 test images of DATA; of smaller data, a tenth for validation and
the rest. `network` writes a residual network of 6 DEPTH + 2 layers (He et al. 2016), with or without shortcuts, to a
folder for `scratch:FOLDER`. `depth` draws the results of the fine-tuned folders that `scripts/depth.sh` makes.
`filters` draws the first layer of a folder of `toolkit pretrain` before and after pretraining.
"""

import json
import math
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import numpy as np
import torch
from matplotlib import pyplot
from PIL import Image
from torch import nn
from torch.nn import functional as F

from toolkit.runs.results import LOG_FILE, read_results

KERNELS = {
    "as it is": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "blur": [[1 / 9] * 3] * 3,
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "edges from left to right": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "edges from top to bottom": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "spots and all edges": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
}
SIDE, WINDOW = 200, 8  # pixels


def photograph(path: str | None) -> np.ndarray:
    """A grey square image (SIDE, SIDE) with values from 0 to 1."""
    if path is None:
        from sklearn.datasets import load_sample_image

        image = Image.fromarray(load_sample_image("china.jpg")).crop((60, 60, 420, 420))
    else:
        image = Image.open(path)
    return np.asarray(image.convert("L").resize((SIDE, SIDE))) / 255


def convolved(image: np.ndarray, kernel: list[list[float]]) -> np.ndarray:
    weight = torch.tensor(kernel, dtype=torch.float64)[None, None]
    return F.conv2d(torch.from_numpy(image)[None, None], weight)[0, 0].numpy()


def kernels(out: str, image: str | None = None) -> None:
    grey = photograph(image)
    figure, all_axes = pyplot.subplots(2, 6, figsize=(12, 4), layout="constrained", height_ratios=[1, 1.7])
    for (above, below), (name, kernel) in zip(all_axes.T, KERNELS.items(), strict=True):
        above.imshow(kernel, cmap="RdBu_r", vmin=-5, vmax=5)
        for row, values in enumerate(kernel):
            for column, value in enumerate(values):
                text = "1/9" if 0 < abs(value) < 1 else f"{value:g}"
                colour = "white" if abs(value) > 3 else "black"
                above.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        above.set_title(name, fontsize=9)
        found = convolved(grey, kernel)
        if sum(map(sum, kernel)) > 0.5:
            below.imshow(found, cmap="gray", vmin=0, vmax=1)
            below.set_xlabel("black 0, white 1", fontsize=8)
        else:
            drawn = below.imshow(found, cmap="RdBu_r", vmin=-1, vmax=1)
            below.set_xlabel("white 0, red above, blue below", fontsize=8)
        for axes in (above, below):
            axes.set_xticks([])
            axes.set_yticks([])
    figure.colorbar(drawn, ax=all_axes[1], shrink=0.8)
    figure.suptitle("six kernels of 3 × 3, and what each makes of the same photograph", fontsize=11)
    save(figure, out)


def pooling(out: str, image: str | None = None) -> None:
    grey = photograph(image)
    edges = np.abs(convolved(grey, KERNELS["edges from left to right"]))[:192, :192]
    moved = np.abs(convolved(np.roll(grey, 2, axis=1), KERNELS["edges from left to right"]))[:192, :192]
    windows = {
        "maximum": lambda x: x.amax(dim=(2, 4)),
        "mean": lambda x: x.mean(dim=(2, 4)),
        "L2: √Σh² / n": lambda x: x.pow(2).sum(dim=(2, 4)).sqrt() / WINDOW**2,
    }

    def pooled(values: np.ndarray, pool) -> np.ndarray:
        return pool(torch.from_numpy(values).view(1, 24, WINDOW, 24, WINDOW))[0].numpy()

    figure, all_axes = pyplot.subplots(1, 4, figsize=(12, 3.5), layout="constrained")
    all_axes[0].imshow(edges, cmap="magma", vmin=0, vmax=2)
    all_axes[0].set_title("strength of edges from left to right\n192 × 192, dark 0, bright 2", fontsize=9)
    change = np.abs(moved - edges).mean() / edges.mean()
    all_axes[0].set_xlabel(f"a shift by 2 pixels changes it by {change:.0%}", fontsize=9)
    for axes, (name, pool) in zip(all_axes[1:], windows.items(), strict=True):
        found, after = pooled(edges, pool), pooled(moved, pool)
        drawn = axes.imshow(found, cmap="magma", vmin=0)
        figure.colorbar(drawn, ax=axes, shrink=0.7)
        axes.set_title(f"{name} of windows of {WINDOW} × {WINDOW}\n24 × 24", fontsize=9)
        change = np.abs(after - found).mean() / found.mean()
        axes.set_xlabel(f"a shift by 2 pixels changes it by {change:.0%}", fontsize=9)
    for axes in all_axes:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle("what pooling keeps: what is there, less and less of where", fontsize=11)
    save(figure, out)


def parameters(out: str) -> None:
    """Draw the parameters of layers from 100 × 100 grey pixels to as many outputs, counted by torch."""
    pixels = 100 * 100
    with torch.device("meta"):
        layers = {
            "fully connected": nn.Linear(pixels, pixels),
            "convolution, 1 kernel of 5 × 5": nn.Conv2d(1, 1, 5, padding=2),
            "convolution, 64 kernels of 5 × 5": nn.Conv2d(1, 64, 5, padding=2),
        }
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers.items()}
    counts["5 × 5 pixels seen by each output, not shared"] = pixels * (25 + 1)
    counts = dict(sorted(counts.items(), key=lambda item: item[1]))
    figure, axes = pyplot.subplots(figsize=(8, 2.4), layout="constrained")
    bars = axes.barh(list(counts), list(counts.values()), color="C0")
    axes.bar_label(bars, [f"{count:,}" for count in counts.values()], padding=3, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(1, 1e11)
    axes.set_xlabel("parameters, weights and biases (logarithmic scale)")
    axes.set_title("a layer that reads 100 × 100 grey pixels", fontsize=10)
    save(figure, out)
    print(json.dumps(counts, indent=2, ensure_ascii=False))


def subset(data: str, folder: str) -> None:
    import datasets

    from toolkit.data.image_files import IMAGES

    Path(folder).mkdir(parents=True)
    train, test = (IMAGES.load_labelled(data, split).shuffle(seed=0) for split in ("train", "test"))
    held_out = min(1_000, len(train) // 10)
    parts = {
        "train": train.select(range(held_out, min(held_out + 10_000, len(train)))),
        "validation": train.select(range(held_out)),
        "test": test.select(range(min(2_000, len(test)))),
    }
    for split, rows in parts.items():
        rows.cast_column("image", datasets.Image()).to_parquet(Path(folder) / f"{split}.parquet")


def network(depth: str, shortcuts: str, folder: str) -> None:
    from transformers import ViTImageProcessor

    from toolkit.models.resnet import SmallImageResNetConfig

    config = SmallImageResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[int(depth)] * 3,
        shortcuts={"yes": True, "no": False}[shortcuts],
    )
    config.save_pretrained(folder)
    processor = ViTImageProcessor(size={"height": 16, "width": 16}, resample=3, do_convert_rgb=True)
    processor.save_pretrained(folder)


def depth(out: str, *folders: str) -> None:
    figures_of_networks: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for folder in map(Path, folders):
        number, shortcuts, _ = folder.name.split("-")
        record = read_results(folder)
        lines = [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line][-10:]
        figures = 100 * record["metrics"]["accuracy"]["value"], statistics.fmean(losses)
        figures_of_networks.setdefault((shortcuts, 6 * int(number) + 2), []).append(figures)
    figure, all_axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for shortcuts, name, marker in (("yes", "with shortcuts", "o"), ("no", "without", "s")):
        found = {layers: values for (kind, layers), values in sorted(figures_of_networks.items()) if kind == shortcuts}
        for part, axes in enumerate(all_axes):
            values = {layers: [pair[part] for pair in pairs] for layers, pairs in found.items()}
            means = [statistics.fmean(v) for v in values.values()]
            spread = np.array([[m - min(v), max(v) - m] for m, v in zip(means, values.values(), strict=True)]).T
            axes.errorbar(list(values), means, yerr=spread, marker=marker, capsize=3, label=name)
    for axes, title in zip(all_axes, ("test accuracy, %", "training loss at the end, nats"), strict=True):
        axes.set_xlabel("layers")
        axes.set_ylabel(title)
        axes.set_xticks(sorted({layers for _, layers in figures_of_networks}))
        axes.grid(alpha=0.3)
        axes.legend()
    num_seeds = max(map(len, figures_of_networks.values()))
    figure.suptitle(f"depth with and without shortcuts: mean, least and most of {num_seeds} seeds", fontsize=10)
    save(figure, out)
    record: dict[str, dict] = {}
    for (shortcuts, layers), pairs in sorted(figures_of_networks.items()):
        accuracies, losses = zip(*pairs, strict=True)
        record[f"{layers} layers, shortcuts: {shortcuts}"] = {
            "layers": layers,
            "accuracy": statistics.fmean(accuracies),
            "loss": statistics.fmean(losses),
            "accuracies": accuracies,
            "losses": losses,
        }
    print(json.dumps(record, indent=2))


def initial_model(folder: str):
    """The classifier with the random weights that a run of `toolkit pretrain` started from, from its seed."""
    from transformers import AutoConfig, AutoModelForImageClassification

    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(read_results(Path(folder))["seed"])
    return AutoModelForImageClassification.from_config(config)


def filters(out: str, folder: str) -> None:
    from transformers import AutoModelForImageClassification

    from toolkit.explain.pictures import zero_is_grey
    from toolkit.explain.saliency import first_kernels

    networks = {"before": initial_model(folder), "after": AutoModelForImageClassification.from_pretrained(folder)}
    figure = pyplot.figure(figsize=(9, 4.8), layout="constrained")
    for part, (title, model) in zip(figure.subfigures(1, 2), networks.items(), strict=True):
        found = first_kernels(model)
        assert found is not None
        columns = math.ceil(len(found) ** 0.5)
        all_axes = part.subplots(-(-len(found) // columns), columns, squeeze=False)
        for axes in all_axes.flat:
            axes.axis("off")
        for axes, kernel in zip(all_axes.flat, found, strict=False):
            axes.imshow(zero_is_grey(kernel))
        part.suptitle(f"{title} pretraining: {len(found)} kernels of {found.shape[2]} × {found.shape[3]}", fontsize=10)
    save(figure, out)


def save(figure, out: str) -> None:
    figure.savefig(out, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    {f.__name__: f for f in (kernels, pooling, parameters, subset, network, depth, filters)}[sys.argv[1]](
        *sys.argv[2:]
    )
