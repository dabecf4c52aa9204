"""The loss of classifiers of images and recordings: cross-entropy with label smoothing and weights of the classes.

Shape legend: N examples, C labels.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import torch
from torch.nn import functional as F


def set_loss(model, label_smoothing: float, class_weights: Sequence[float] | None) -> None:
    """Set the loss of a classifier: cross-entropy with label smoothing and weights (C,) of the classes."""
    weight = None if class_weights is None else torch.tensor(class_weights)
    model.loss_function = partial(_cross_entropy, label_smoothing=label_smoothing, weight=weight)


def _cross_entropy(
    labels: torch.Tensor, logits: torch.Tensor, config, label_smoothing: float, weight: torch.Tensor | None
) -> torch.Tensor:
    """`labels` are ids (N,), or probabilities of the first labels, all others having none."""
    if labels.is_floating_point():
        labels = F.pad(labels, (0, logits.shape[1] - labels.shape[1]))
    if weight is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    losses = F.cross_entropy(logits, labels, weight.to(logits), label_smoothing=label_smoothing, reduction="sum")
    return losses / ((labels >= 0).sum() if labels.dim() == 1 else len(labels))


def weights_of_classes(counts: Counter[str], labels: Sequence[str]) -> list[float]:
    """Weights inversely proportional to the frequency of each label; their mean over all examples is 1."""
    occurring = sum(1 for label in labels if counts[label])
    return [counts.total() / (occurring * counts[label]) if counts[label] else 0.0 for label in labels]
