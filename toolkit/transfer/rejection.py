"""When to say that an item belongs to none of the known classes: a threshold from episodes of held-out classes."""

from typing import Any

import numpy as np

from toolkit.errors import InputError
from toolkit.transfer.episodes import draw_episodes


def rejection_threshold(
    classifier: Any, features: np.ndarray, labels: np.ndarray, ways: int, shots: int, num_episodes: int, seed: int
) -> float:
    """Choose the threshold that tells items of known classes from items of unknown ones best.

    Args:
        classifier: A `FewShotClassifier` of features, which is fitted in each episode.
        features: Features of held-out items, (N, D).
        labels: Their classes, (N,).
        ways: Number of known classes per episode, and of unknown ones.
        shots: Examples of each known class.
        num_episodes: Number of episodes.
        seed: Seed of the episodes.

    Raises:
        InputError: There are too few held-out classes or examples.
    """
    if ways < 2:
        raise InputError(f"calibrate: {len(np.unique(labels))} held-out classes, expected four or more")
    ids = np.repeat(np.arange(ways), shots)
    known, unknown = [], []
    for episode in draw_episodes(labels, 2 * ways, shots, 1, num_episodes, seed):
        classifier.fit(features[episode.support[:ways].ravel()], ids)
        confidence = classifier.confidence(features[episode.query.ravel()])
        known.append(confidence[:ways])
        unknown.append(confidence[ways:])
    return _best_threshold(np.concatenate(known), np.concatenate(unknown))


def _best_threshold(known: np.ndarray, unknown: np.ndarray) -> float:
    """The threshold with the highest balanced accuracy: `known` above it, `unknown` below it."""
    levels = np.unique(np.concatenate([known, unknown]))
    candidates = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    accepted = 1 - np.searchsorted(np.sort(known), candidates) / len(known)
    rejected = np.searchsorted(np.sort(unknown), candidates) / len(unknown)
    return float(candidates[(accepted + rejected).argmax()])
