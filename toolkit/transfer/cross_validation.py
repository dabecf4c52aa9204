"""Cross-validation of a few-shot classifier: how good it is, from the examples that it learns from alone.

Stone (1974), "Cross-validatory choice and assessment of statistical predictions",
https://doi.org/10.1111/j.2517-6161.1974.tb00994.x.

Shape legend: N examples, D features.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from toolkit.errors import InputError
from toolkit.metrics.intervals import Interval, wilson_interval
from toolkit.transfer.few_shot_classifier import DISTANCE_METHODS, FewShotClassifier

NUM_FOLDS = 5
REJECTED = 0.05  # of the examples of known classes, that a threshold rejects


class CrossValidation(NamedTuple):
    """What a classifier predicts for examples that it has not learned from.

    Attributes:
        folds: The part that each example is in, (N,), for which a classifier learns from the other parts.
        predicted: The predicted label of each example, (N,).
        confidence: How similar each example is to the most similar class, (N,).
        accuracy: The accuracy with its 95% interval. Examples of one group count as one for the interval.
    """

    folds: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    accuracy: Interval

    @property
    def num_folds(self) -> int:
        return int(self.folds.max()) + 1

    def threshold(self) -> float:
        """The confidence that all but a share of `REJECTED` of the examples have."""
        return float(np.quantile(self.confidence, REJECTED))


def cross_validate(
    classifier: FewShotClassifier,
    features: np.ndarray,
    labels: Sequence[Any],
    groups: Sequence[Hashable],
    num_folds: int = NUM_FOLDS,
    seed: int = 0,
) -> CrossValidation:
    """Cross-validate a classifier with the parameters of `classifier` on features (N, D).

    Examples of a label in one of the `groups`, such as equal ones, are in the same fold. There are as many folds as
    the smallest class has groups if these are fewer than `num_folds`. Raises `InputError` if a class has one group
    only.
    """
    targets = np.asarray(labels)
    folds = folds_of(targets.tolist(), groups, num_folds, seed)
    predicted, confidence = np.empty(len(targets), targets.dtype), np.empty(len(targets))
    for fold in range(int(folds.max()) + 1):
        is_tested = folds == fold
        learned = _like(classifier).fit(features[~is_tested], targets[~is_tested])
        predicted[is_tested], confidence[is_tested] = learned.predict_with_confidence(features[is_tested])
    num_groups = len(set(zip(targets.tolist(), groups, strict=True)))
    share = float((predicted == targets).mean())
    return CrossValidation(folds, predicted, confidence, wilson_interval(share * num_groups, num_groups))


def folds_of(labels: Sequence[Any], groups: Sequence[Hashable], num_folds: int, seed: int) -> np.ndarray:
    """The fold of each example, (N,): the groups of each label, in random order, are dealt to the folds in turn."""
    of_label: defaultdict[Any, dict[Hashable, int]] = defaultdict(dict)
    for label, group in zip(labels, groups, strict=True):
        of_label[label].setdefault(group, 0)
    label, smallest = min(((label, len(found)) for label, found in of_label.items()), key=lambda pair: pair[1])
    if smallest < 2:
        raise InputError(f"{label}: has one example, expected two or more, as each is classified by means of others")
    num_folds, generator, start = min(num_folds, smallest), random.Random(seed), 0
    for found in of_label.values():
        order = list(found)
        generator.shuffle(order)
        for place, group in enumerate(order, start=start):
            found[group] = place % num_folds
        start += len(order)
    return np.array([of_label[label][group] for label, group in zip(labels, groups, strict=True)])


def share_rejected(
    classifier: FewShotClassifier, features: np.ndarray, labels: Sequence[Any], threshold: float
) -> float | None:
    """The share of examples of an unknown class that the threshold rejects, where each class in turn is not learned.

    None for two classes, as there is nothing to tell apart without one of them.
    """
    targets = np.asarray(labels)
    if len(classes := np.unique(targets)) < 3:
        return None
    without_layer = (
        {} if classifier.method in DISTANCE_METHODS else {"method": "prototype", "metric": "cosine", "scale": 1.0}
    )
    rejected = []
    for unknown in classes:
        is_known = targets != unknown
        # The confidence before a linear layer is the cosine with the mean of a class, which is a prototype.
        learned = _like(classifier).set_params(**without_layer).fit(features[is_known], targets[is_known])
        rejected.append(learned.predict_with_confidence(features[~is_known])[1] < threshold)
    return float(np.concatenate(rejected).mean())


def _like(classifier: FewShotClassifier) -> FewShotClassifier:
    """A classifier of features with the same parameters, which rejects nothing."""
    return FewShotClassifier(**classifier.get_params() | {"encoder": None, "modality_name": None, "reject": False})
