"""The confusion matrix as a picture."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

MOST_LABELS = 60  # that are shown; the picture grows with the square of their number


def write_confusion_matrix(path: Path, references: Sequence[str], predictions: Sequence[str]) -> None:
    """Write a PNG with a row per correct label and a column per predicted one; shades are shares of the row.

    Of many labels, those that are confused most often are shown.
    """
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    from matplotlib import pyplot

    pairs, totals = Counter(zip(references, predictions, strict=True)), Counter(references)
    labels = sorted({*references, *predictions})
    has_more = len(labels) > MOST_LABELS
    if has_more:
        errors = Counter(dict.fromkeys(labels, 0))
        for (right, predicted), count in pairs.items():
            if right != predicted:
                errors.update({right: count, predicted: count})
        labels = sorted(label for label, _ in errors.most_common(MOST_LABELS))
    counts = np.array([[pairs[right, predicted] for predicted in labels] for right in labels])
    shares = counts / np.array([[max(1, totals[label])] for label in labels])
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
    num_right = sum(count for (right, predicted), count in pairs.items() if right == predicted)
    title = f"accuracy {num_right / len(references):.1%} of {len(references):,}"
    if has_more:
        title += f"; the {len(labels)} labels with most errors"
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="share of the right label", shrink=0.8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
