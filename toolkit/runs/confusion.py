"""The confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path


def write_confusion_matrix(path: Path, references: Sequence[str], predictions: Sequence[str]) -> None:
    """Write a PNG with a row per correct label and a column per predicted one; shades are shares of the row."""
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    from matplotlib import pyplot

    labels = sorted({*references, *predictions})
    index = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, ([index[label] for label in references], [index[label] for label in predictions]), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2 + 0.42 * len(labels)
    figure, axes = pyplot.subplots(figsize=(size + 0.8, size), layout="constrained")
    image = axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=7, in_layout=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("right")
    axes.set_title(f"accuracy {np.trace(counts) / counts.sum():.1%} of {counts.sum():,}")
    figure.colorbar(image, ax=axes, label="share of the right label", shrink=0.8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
