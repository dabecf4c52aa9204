"""95% intervals by the bootstrap, and paired comparison.

Efron (1979), "Bootstrap methods: another look at the jackknife", https://doi.org/10.1214/aos/1176344552. What is drawn
again are sentences, lines or batches, never single words, which depend on one another.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

NUM_RESAMPLES = 2000

Interval = dict[str, float]  # value, low, high
Ratio = tuple[ArrayLike, ArrayLike]  # two numbers an item, such as right words and words of a sentence


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Interval:
    """The ratio of two sums over items, such as right words over words."""
    return mean_ratio_interval([(numerators, denominators)], seed)


def mean_ratio_interval(ratios: list[Ratio], seed: int = 0) -> Interval:
    """The mean of several such ratios over the same items, such as the F1 of each tag."""
    values, resampled = zip(*(_resample(*ratio, seed) for ratio in ratios), strict=True)
    with np.errstate(invalid="ignore"):
        means = np.nansum(resampled, axis=0) / np.sum(~np.isnan(resampled), axis=0)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high)}


def paired_difference(
    numerators: ArrayLike, other_numerators: ArrayLike, denominators: ArrayLike, seed: int = 0
) -> Interval:
    """How much the first ratio is above the second on the same items.

    `numerators` (runs, items) are pooled over runs, that is over seeds; `denominators` (items,) are the same for all.
    """
    first, second = (np.asarray(values, dtype=np.float64).mean(axis=0) for values in (numerators, other_numerators))
    return ratio_interval(first - second, denominators, seed)


def _resample(numerators: ArrayLike, denominators: ArrayLike, seed: int) -> tuple[float, np.ndarray]:
    """The ratio of the sums, and the same in each resample, not a number where nothing to divide by was drawn."""
    sums = np.stack([np.asarray(numerators), np.asarray(denominators)]).astype(np.float64)  # (2, items)
    drawn = _weights(sums.shape[1], seed) @ sums.T  # (NUM_RESAMPLES, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(sums[0].sum() / sums[1].sum()), np.where(drawn[:, 1] > 0, drawn[:, 0] / drawn[:, 1], np.nan)


@lru_cache(maxsize=4)
def _weights(num_items: int, seed: int) -> np.ndarray:
    """(NUM_RESAMPLES, num_items): how often each item was drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_items, np.full(num_items, 1 / num_items), size=NUM_RESAMPLES).astype(np.float32)
