"""Metric-based classification: logits of classes from the similarity of features to labelled points.

A point is a prototype (Snell, Swersky & Zemel 2017, https://arxiv.org/abs/1703.05175), a labelled example (nearest
neighbour), or a row of weights of a linear layer. Cosines are scaled as in Gidaris & Komodakis (2018),
https://arxiv.org/abs/1804.09458.

Shape legend: N items, P points, C classes, D features.
"""

import torch
from torch.nn import functional as F


def center_and_normalize(features: torch.Tensor, mean: torch.Tensor, normalize: bool) -> torch.Tensor:
    """Subtract the mean (D,) from features (N, D) and scale them to unit length if `normalize`.

    Wang, Chao, Weinberger & van der Maaten (2019), "SimpleShot", https://arxiv.org/abs/1911.04623.
    """
    return F.normalize(features - mean) if normalize else features - mean


def class_logits(
    features: torch.Tensor,
    points: torch.Tensor,
    classes: torch.Tensor,
    num_classes: int,
    metric: str,
    scale: float = 1.0,
    biases: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits (N, C): the similarity of each item to the most similar point of each class.

    `features` are (N, D), `points` (P, D), and `classes` (P,) has the class of each point; every class has at least
    one. A `metric` is `cosine`, times `scale`, `linear` (dot products), or `euclidean` and `sqeuclidean` (negative
    distances). `biases` (P,) are added to the similarities.
    """
    if metric == "linear":
        similarities = features @ points.T
    elif metric == "cosine":
        similarities = scale * F.normalize(features) @ F.normalize(points).T
    else:
        distances = torch.cdist(features, points, compute_mode="donot_use_mm_for_euclid_dist")
        similarities = -distances if metric == "euclidean" else -distances.square()
    if biases is not None:
        similarities = similarities + biases
    if len(points) == num_classes:  # one point per class, in the order of the classes
        return similarities
    lowest = similarities.new_full((len(similarities), num_classes), float("-inf"))
    return lowest.scatter_reduce(1, classes.expand(similarities.shape), similarities, "amax")
