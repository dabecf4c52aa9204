"""95% intervals by the bootstrap, and paired comparison.

Efron (1979), "Bootstrap methods: another look at the jackknife", https://doi.org/10.1214/aos/1176344552. What is drawn
again are sentences, lines or batches, never single words, which depend on one another.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import hmean

NUM_RESAMPLES = 2000
MOST_WEIGHTS = 10_000_000  # of one block, 80 MB

Interval = dict[str, float]  # value, low, high
Ratio = tuple[ArrayLike, ArrayLike]  # two numbers an item, such as right words and words of a sentence


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Interval:
    """The ratio of two sums over items, such as right words over words."""
    return mean_ratio_interval([(numerators, denominators)], seed)


def mean_ratio_interval(ratios: list[Ratio], seed: int = 0) -> Interval:
    """The mean of several such ratios over the same items, such as the F1 of each tag."""
    values, resampled = zip(*(_resample(*ratio, seed) for ratio in ratios), strict=True)
    return _interval(values, resampled)


def harmonic_mean_interval(ratios: list[Ratio], seed: int = 0) -> Interval:
    """The harmonic mean of several such ratios over the same items, such as the accuracies of two groups of them."""
    values, resampled = zip(*(_resample(*ratio, seed) for ratio in ratios), strict=True)
    return _interval([hmean(values)], [hmean(resampled, axis=0)])


def paired_difference(
    numerators: ArrayLike, other_numerators: ArrayLike, denominators: ArrayLike, seed: int = 0
) -> Interval:
    """How much the first ratio is above the second on the same items.

    `numerators` (runs, items) are pooled over runs, that is over seeds; `denominators` (items,) are the same for all.
    """
    first, second = (np.asarray(values, dtype=np.float64).mean(axis=0) for values in (numerators, other_numerators))
    return ratio_interval(first - second, denominators, seed)


def mean_auc_interval(scored: Sequence[tuple[ArrayLike, ArrayLike]], seed: int = 0) -> Interval:
    """The area under the ROC curve: how often a positive item has a higher score than a negative one, ties half.

    Each of `scored` is `scores` and `is_positive`, (items,), with items of both kinds; of several the mean. Hanley &
    McNeil (1982), "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    https://doi.org/10.1148/radiology.143.1.7063747.
    """
    values, resampled = zip(*(_resample_area(*each, seed) for each in scored), strict=True)
    return _interval(values, resampled)


def mean_auc_difference(
    scored: Sequence[tuple[ArrayLike, ArrayLike]], other_scored: Sequence[tuple[ArrayLike, ArrayLike]], seed: int = 0
) -> Interval:
    """How much the mean area of the first is above that of the second on the same items."""
    areas = [[_resample_area(*each, seed) for each in each_scored] for each_scored in (scored, other_scored)]
    first, second = (float(np.mean([value for value, _ in found])) for found in areas)
    drawn, other_drawn = (np.nanmean([resampled for _, resampled in found], axis=0) for found in areas)
    return _interval([first - second], [drawn - other_drawn])


def _resample_area(scores: ArrayLike, is_positive: ArrayLike, seed: int) -> tuple[float, np.ndarray]:
    distinct, groups = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(len(distinct)))
    positive = np.asarray(is_positive, dtype=np.float64)[order]

    def areas(weights: np.ndarray) -> np.ndarray:
        """`weights` (resamples, items), in order -> (resamples,)"""
        of_positive, of_negative = (
            np.add.reduceat(weights * kind, starts, axis=1) for kind in (positive, 1 - positive)
        )  # (resamples, distinct scores)
        below = np.cumsum(of_negative, axis=1) - of_negative
        pairs = of_positive.sum(axis=1) * of_negative.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, (of_positive * (below + of_negative / 2)).sum(axis=1) / pairs, np.nan)

    drawn = [areas(weights[:, order]) for weights in _weights(len(order), seed)]
    return float(areas(np.ones((1, len(order))))[0]), np.concatenate(drawn)


def _interval(values: Sequence[float], resampled: Sequence[np.ndarray]) -> Interval:
    """The mean of several figures, and in each resample the mean of those that are numbers there."""
    with np.errstate(invalid="ignore"):
        means = np.nansum(resampled, axis=0) / np.sum(~np.isnan(resampled), axis=0)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high)}


def _resample(numerators: ArrayLike, denominators: ArrayLike, seed: int) -> tuple[float, np.ndarray]:
    """The ratio of the sums, and the same in each resample, not a number where nothing to divide by was drawn."""
    sums = np.stack([np.asarray(numerators), np.asarray(denominators)]).astype(np.float64)  # (2, items)
    drawn = np.concatenate([weights @ sums.T for weights in _weights(sums.shape[1], seed)])  # (NUM_RESAMPLES, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(sums[0].sum() / sums[1].sum()), np.where(drawn[:, 1] > 0, drawn[:, 0] / drawn[:, 1], np.nan)


def _weights(num_items: int, seed: int) -> Iterable[np.ndarray]:
    """How often each item was drawn, (resamples, num_items), in blocks; of many items they are not kept in memory."""
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
