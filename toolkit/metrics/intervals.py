"""Figures with 95% bootstrap intervals, and their paired comparison.

Efron (1979), "Bootstrap methods: another look at the jackknife", https://doi.org/10.1214/aos/1176344552. The items
that are resampled are sentences, lines or batches, never single words, because words of a sentence are not
independent.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

NUM_RESAMPLES = 2000
Z_95 = NormalDist().inv_cdf(0.975)
MOST_WEIGHTS = 10_000_000  # in memory at a time (80 MB)

Interval = dict[str, float]  # value, low, high


class Bootstrap:
    """A figure, and the same figure in each resample of the items, which are drawn when they are first asked for.

    Figures over the same number of items use the same resamples, so that their difference is a paired comparison.

    Args:
        value: The figure.
        resample: Computes the figure in each resample, (NUM_RESAMPLES,); NaN if it is not defined there.
    """

    def __init__(self, value: float, resample: Callable[[], np.ndarray]):
        self.value, self._resample = value, resample

    @cached_property
    def resampled(self) -> np.ndarray:
        return self._resample()

    def interval(self) -> Interval:
        """The figure with its 95% interval."""
        low, high = np.nanpercentile(self.resampled, [2.5, 97.5])
        return {"value": self.value, "low": float(low), "high": float(high)}

    def minus(self, other: "Bootstrap") -> "Bootstrap":
        """The paired difference to another figure over the same items."""
        return Bootstrap(self.value - other.value, lambda: self.resampled - other.resampled)


def bootstrap_ratio(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Bootstrap:
    """The sum of `numerators` over the sum of `denominators`, both (items,), such as correct words over words."""

    def ratio(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan)

    return bootstrap_terms(np.column_stack([numerators, denominators]), ratio, seed)


def bootstrap_terms(terms: ArrayLike, figure: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Bootstrap:
    """A figure of sums over items, such as an F-score: `terms` (items, K), and `figure` from sums (N, K) to (N,)."""
    stacked = np.asarray(terms, dtype=np.float64)

    def resample() -> np.ndarray:
        return figure(np.concatenate([weights @ stacked for weights in _weights(len(stacked), seed)]))

    return Bootstrap(float(figure(stacked.sum(axis=0, keepdims=True))[0]), resample)


def bootstrap_auc(scores: ArrayLike, is_positive: ArrayLike, seed: int = 0) -> Bootstrap:
    """The area under the ROC curve: how often a positive item has a higher score than a negative one, ties half.

    `scores` and `is_positive` are (items,), with items of both kinds. Hanley & McNeil (1982), "The meaning and use of
    the area under a receiver operating characteristic (ROC) curve", https://doi.org/10.1148/radiology.143.1.7063747.
    """
    distinct, groups = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(len(distinct)))
    positive = np.asarray(is_positive, dtype=np.float64)[order]

    def areas(weights: np.ndarray) -> np.ndarray:
        """`weights` (resamples, items), in the order of the scores -> (resamples,)"""
        of_positive = np.add.reduceat(weights * positive, starts, axis=1)  # (resamples, distinct scores)
        of_negative = np.add.reduceat(weights * (1 - positive), starts, axis=1)
        below = np.cumsum(of_negative, axis=1) - of_negative
        pairs = of_positive.sum(axis=1) * of_negative.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, (of_positive * (below + of_negative / 2)).sum(axis=1) / pairs, np.nan)

    def resample() -> np.ndarray:
        return np.concatenate([areas(weights[:, order]) for weights in _weights(len(order), seed)])

    return Bootstrap(float(areas(np.ones((1, len(order))))[0]), resample)


def bootstrap_statistic(statistic: Callable[[np.ndarray], float], num_items: int, seed: int = 0) -> Bootstrap:
    """Any figure, such as a rank correlation. `statistic` computes it from the indices of drawn items (num_items,)."""

    def resample() -> np.ndarray:
        draws = np.random.default_rng(seed).integers(num_items, size=(NUM_RESAMPLES, num_items))
        return np.array([statistic(draw) for draw in draws])

    return Bootstrap(statistic(np.arange(num_items)), resample)


def bootstrap_mean(figures: Sequence[Bootstrap]) -> Bootstrap:
    """The mean of several figures over the same items; in each resample the mean of those defined there."""

    def resample() -> np.ndarray:
        resampled = np.stack([figure.resampled for figure in figures])
        with np.errstate(invalid="ignore"):
            return np.nansum(resampled, axis=0) / np.sum(~np.isnan(resampled), axis=0)

    return Bootstrap(float(np.mean([figure.value for figure in figures])), resample)


def bootstrap_harmonic_mean(figures: Sequence[Bootstrap]) -> Bootstrap:
    """The harmonic mean of several figures over the same items."""

    def harmonic_mean(values: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return len(values) / np.sum(1 / values, axis=0)

    value = float(harmonic_mean(np.array([figure.value for figure in figures])))
    return Bootstrap(value, lambda: harmonic_mean(np.stack([figure.resampled for figure in figures])))


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Interval:
    """`bootstrap_ratio` as a figure with its interval."""
    return bootstrap_ratio(numerators, denominators, seed).interval()


def wilson_interval(hits: float, trials: int) -> Interval:
    """The share of hits with Wilson's 95% interval (1927), https://doi.org/10.1080/01621459.1927.10502953.

    Unlike a bootstrap interval it is not empty if all of a few trials are hits.
    """
    share, square = hits / trials, Z_95**2 / trials
    center = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return {"value": share, "low": max(0.0, center - half), "high": min(1.0, center + half)}


def exp_interval(interval: Interval) -> Interval:
    """The exponential of a figure and of its bounds, such as the perplexity of a loss."""
    return {name: math.exp(value) for name, value in interval.items()}


def _weights(num_items: int, seed: int) -> Iterable[np.ndarray]:
    """How often each item is drawn, (resamples, num_items), in blocks; they are cached unless there are many items."""
    blocks = _kept_weights if NUM_RESAMPLES * num_items <= MOST_WEIGHTS else _draw_weights
    return blocks(num_items, seed)


@lru_cache(maxsize=4)
def _kept_weights(num_items: int, seed: int) -> list[np.ndarray]:
    return list(_draw_weights(num_items, seed))


def _draw_weights(num_items: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    shares = np.full(num_items, 1 / num_items)
    block = max(1, MOST_WEIGHTS // num_items)
    for start in range(0, NUM_RESAMPLES, block):
        yield rng.multinomial(num_items, shares, size=min(block, NUM_RESAMPLES - start)).astype(np.float64)
