"""Which parts of a spectrogram are important for a label: occlusion and Grad-CAM, as PNGs and an HTML page."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot
from torch import nn

from toolkit.errors import InputError
from toolkit.explain.saliency import feature_maps, grad_cam, main_layers, occlusion_map
from toolkit.explain.text_pictures import Page


class OnImages(nn.Module):
    """A classifier of spectrograms (B, T, M), called like one of images with one channel, (B, 1, M, T)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor):
        return self.model(input_values=pixel_values[:, 0].transpose(1, 2))


def importance_maps(model: nn.Module, spectrogram: torch.Tensor, label: int) -> dict[str, np.ndarray]:
    """How important each place of a spectrogram (1, T, M) is for the id of a label, (M, T), by the name of the method.

    Grad-CAM is only of convolutional networks.
    """
    classifier, image = OnImages(model), spectrogram.transpose(1, 2).unsqueeze(1)
    maps = {"occlusion": occlusion_map(classifier, image, label)}
    inside = getattr(model.config, "encoder", None) or {}  # of an image encoder on spectrograms
    if getattr(model.config, "num_attention_heads", None) or inside.get("num_attention_heads"):
        return maps
    if layers := main_layers(classifier, feature_maps(classifier, image)):
        maps["grad_cam"] = grad_cam(classifier, image, label, layers[-1])
    return maps


def write_explanation(
    model: nn.Module, spectrogram: torch.Tensor, seconds: float, label: tuple[str, int], name: str, folder: Path
) -> list[Path]:
    """Write what is important in a recording for a label.

    Args:
        model: The classifier.
        spectrogram: What it reads of the recording, (1, T, M).
        seconds: The length that the spectrogram shows.
        label: The label and its id.
        name: The name of the recording.
        folder: Folder for the pictures.

    Returns:
        The paths of the files.

    Raises:
        InputError: The model reads no spectrograms.
    """
    if spectrogram.dim() != 3:
        raise InputError(f"{type(model).__name__}: reads samples, not spectrograms, so there is nothing to draw")
    image = spectrogram[0].T.numpy()
    page = Page(f"“{label[0]}” in {name}", folder)
    page.add_picture("spectrogram", "The spectrogram", "What the model reads.", _draw(image, seconds, None, ""))
    notes = {
        "occlusion": "How much the logit of the label falls where a square of the mean covers the spectrogram.",
        "grad_cam": "The positive part of the last feature maps, weighted by the gradients of the label's logit.",
    }
    for method, values in importance_maps(model, spectrogram, label[1]).items():
        title = f"importance for “{label[0]}”, logits"
        heading = method.replace("_", "-").replace("grad-cam", "Grad-CAM").capitalize()
        page.add_picture(method, heading, notes[method], _draw(image, seconds, values, title))
    return page.write()


def _draw(image: np.ndarray, seconds: float, values: np.ndarray | None, title: str):
    """Draw a spectrogram (M, T), in grey under importance values of the same shape: red above 0, blue below."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3), layout="constrained")
    extent = (0.0, seconds, -0.5, len(image) - 0.5)
    place: Any = {"origin": "lower", "aspect": "auto", "extent": extent}
    drawn = axes.imshow(image, cmap="viridis" if values is None else "gray", **place)
    label = "log-mel value, standardized"
    if values is not None:
        largest = float(np.abs(values).max()) or 1.0
        drawn = axes.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=0.55, **place)
        label = title
    axes.set_xlabel("seconds")
    axes.set_ylabel("mel filter")
    figure.colorbar(drawn, ax=axes).set_label(label, fontsize=8)
    return figure
