"""The results of `toolkit.explain.saliency` for one image, as annotated PNGs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import numpy as np
import torch
from matplotlib import pyplot

from toolkit.errors import InputError
from toolkit.explain import saliency

NUM_KERNELS, NUM_MAPS, NUM_FILTERS, NUM_LAYERS = 64, 8, 4, 4  # that are shown at most
DPI = 130


def write_explanation(
    model, image: np.ndarray, pixels: torch.Tensor, label: tuple[str, int], layers: Sequence[str] | None, folder: Path
) -> list[Path]:
    """Write all pictures that explain what an image classifier sees in an image, and return their paths.

    Args:
        model: The classifier.
        image: (height, width, 3) uint8.
        pixels: The same image as the model's input, (1, C, S, S).
        label: The label for which importance maps are computed, and its id.
        layers: Names of the layers whose maps are shown (default: up to four of the main ones).
        folder: Folder for the pictures.

    Raises:
        InputError: The model has no layer of that name with maps.
    """
    maps = saliency.feature_maps(model, pixels)
    main = saliency.main_layers(model, maps)
    shown = list(layers or _some(main, NUM_LAYERS))
    if unknown := [layer for layer in shown if layer not in maps]:
        raise InputError(
            f"--layers {' '.join(unknown)}: no layer with maps, the main ones are {', '.join(main) or 'none'}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = []

    def write(name: str, figure) -> None:
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=DPI)
        pyplot.close(figure)

    if (kernels := saliency.first_kernels(model)) is not None:
        write("kernels", _draw_kernels(kernels))
    if shown:
        write("feature_maps", _draw_feature_maps(image, {layer: maps[layer] for layer in shown}))
        strongest = {layer: saliency.strongest(maps[layer], NUM_FILTERS) for layer in shown}
        patterns = {layer: saliency.deconvolution(model, pixels, layer, strongest[layer]) for layer in shown}
        write("deconvolution", _draw_deconvolution(image, strongest, patterns))
    window = max(1, min(pixels.shape[2:]) // saliency.WINDOW)
    name, label_id = label
    for kind, values in saliency.importance_maps(model, pixels, label_id).items():
        if kind == "attention":
            write(kind, _draw_attention(image, saliency.attentions(model, pixels) or [], values))
        elif kind == "occlusion":
            unit = f"fall of the logit where a square\nof {window} × {window} pixels covers it"
            write(kind, _draw_importance(image, values, f"importance for “{name}”", unit))
        else:
            title = f"importance of the last maps for “{name}”"
            write(kind, _draw_importance(image, values, title, "Grad-CAM, logits"))
    return written


def _draw_kernels(kernels: np.ndarray):
    """Draw `kernels` (kernels, channels, height, width); three channels are drawn as colours."""
    shown = kernels[:NUM_KERNELS]
    columns = min(len(shown), 8)
    figure, all_axes = _grid(-(-len(shown) // columns), columns, 0.75, extra_height=0.7)
    for axes, kernel in zip(all_axes.flat, shown, strict=False):
        _show(axes, zero_is_grey(kernel))
    how_many = f"{len(kernels)} kernels" if len(shown) == len(kernels) else f"{len(shown)} of {len(kernels)} kernels"
    height, width = kernels.shape[2:]
    figure.suptitle(f"first layer: {how_many} of {height} × {width} pixels\n(grey is 0)", fontsize=9)
    return figure


def _draw_feature_maps(image: np.ndarray, maps: dict[str, torch.Tensor]):
    """Draw, in one row per layer, the maps with the largest values, each scaled to its own range."""
    figure, all_axes = _grid(len(maps), NUM_MAPS + 1, 1.05, extra_height=0.5)
    for row, (layer, output) in zip(all_axes, maps.items(), strict=True):
        _, num_maps, height, width = output.shape
        _show(row[0], image, f"{_short(layer)}\n{num_maps} maps of {height} × {width}", fontsize=6)
        for axes, channel in zip(row[1:], saliency.strongest(output, NUM_MAPS), strict=False):
            axes.imshow(output[0, channel].cpu(), cmap="viridis")
            axes.set_title(f"map {channel}", fontsize=6)
    figure.suptitle("the strongest maps of some layers (dark: least, bright: most, each map by itself)", fontsize=9)
    return figure


def _draw_deconvolution(image: np.ndarray, channels: dict[str, list[int]], patterns: dict[str, torch.Tensor]):
    """Draw, in one row per layer, the patterns in the image that excite its strongest filters."""
    figure, all_axes = _grid(len(channels), NUM_FILTERS + 1, 1.4, extra_height=0.5)
    for row, layer in zip(all_axes, channels, strict=True):
        _show(row[0], image, _short(layer), fontsize=7)
        for axes, channel, pattern in zip(row[1:], channels[layer], patterns[layer].cpu().numpy(), strict=False):
            _show(axes, zero_is_grey(pattern), f"map {channel}", fontsize=7)
    figure.suptitle("deconvolution: what excites the strongest filters (grey: nothing)", fontsize=9)
    return figure


def _draw_importance(image: np.ndarray, values: np.ndarray, title: str, unit: str):
    """Draw the image beside its importance map."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(6.4, 3), layout="constrained")
    _show(left, image, "the image", fontsize=9)
    _overlay(figure, right, image, values, unit)
    right.set_title(title, fontsize=9)
    return figure


def _draw_attention(image: np.ndarray, layers: list[torch.Tensor], rollout: np.ndarray):
    """Draw the image, the attention rollout over all layers, and the attention of each head of the last layer."""
    heads = layers[-1][:, 0, 1:]
    figure, all_axes = _grid(1, len(heads) + 2, 1.7, extra_height=0.9)
    _show(all_axes[0, 0], image, "the image", fontsize=8)
    _overlay(figure, all_axes[0, 1], image, rollout, "attention through all layers, share of a patch")
    all_axes[0, 1].set_title("all layers together", fontsize=8)
    for head, (axes, weights) in enumerate(zip(all_axes[0, 2:], heads, strict=True)):
        axes.imshow(saliency.on_image(weights, image.shape[:2]), cmap="magma")
        axes.set_title(f"last layer, head {head}", fontsize=8)
    figure.suptitle("what reaches the classification token", fontsize=9)
    return figure


def _overlay(figure, axes, image: np.ndarray, values: np.ndarray, unit: str) -> None:
    """Draw the image in grey under `values`: red above 0, blue below."""
    largest = float(np.abs(values).max()) or 1.0
    is_signed = float(values.min()) < 0
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    colours = {"cmap": "RdBu_r", "vmin": -largest} if is_signed else {"cmap": "Reds", "vmin": 0}
    drawn = axes.imshow(values, **colours, vmax=largest, alpha=0.6, extent=extent)
    axes.axis("off")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.85)
    bar.set_label(unit, fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _show(axes, image: np.ndarray, title: str = "", fontsize: int = 9) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.axis("off")
    axes.set_title(title, fontsize=fontsize)


def zero_is_grey(values: np.ndarray) -> np.ndarray:
    """Scale (channels, height, width) around 0 to (height, width, 3) around 0.5, from 0 to 1."""
    values = values if len(values) == 3 else np.repeat(values.mean(axis=0, keepdims=True), 3, axis=0)
    return np.moveaxis(0.5 + values / (2 * np.abs(values).max() + 1e-12), 0, -1)


def _grid(rows: int, columns: int, size: float, extra_height: float):
    figure, all_axes = pyplot.subplots(
        rows, columns, figsize=(columns * size, rows * size + extra_height), layout="constrained", squeeze=False
    )
    for axes in all_axes.flat:
        axes.axis("off")
    return figure, all_axes


def _short(layer: str) -> str:
    """The last parts of a long name."""
    return layer if len(layer) <= 24 else "…" + layer[-23:]


def _some(names: list[str], size: int) -> list[str]:
    """At most `size` of the names, evenly spaced, including the first and the last."""
    if len(names) <= size:
        return names
    return [names[round(i * (len(names) - 1) / (size - 1))] for i in range(size)]
