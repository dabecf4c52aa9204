"""Intervals compared with scipy and with known answers."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from toolkit.metrics import intervals
from toolkit.metrics.intervals import bootstrap_harmonic_mean, bootstrap_mean, bootstrap_ratio, ratio_interval


def test_ratio_interval_agrees_with_scipy():
    rng = np.random.default_rng(1)
    words = rng.integers(5, 30, 300)
    right = rng.binomial(words, 0.8)
    ours = ratio_interval(right, words)
    theirs = bootstrap(
        (right, words), lambda r, w, axis: r.sum(axis) / w.sum(axis), paired=True, method="percentile", rng=2
    ).confidence_interval
    assert ours["value"] == right.sum() / words.sum()
    assert ours["low"] == pytest.approx(theirs.low, abs=2e-3)
    assert ours["high"] == pytest.approx(theirs.high, abs=2e-3)


def test_harmonic_mean_and_its_interval_agree_with_scipy():
    rng = np.random.default_rng(3)
    is_first = rng.random(500) < 0.4
    hits = rng.random(500) < np.where(is_first, 0.9, 0.5)
    groups = [(hits & group, group) for group in (is_first, ~is_first)]
    ours = bootstrap_harmonic_mean([bootstrap_ratio(*group) for group in groups]).interval()

    def of(right, first, axis=-1):
        rates = [(right * group).sum(axis) / group.sum(axis) for group in (first, 1 - first)]
        return 2 * rates[0] * rates[1] / (rates[0] + rates[1])

    theirs = bootstrap((hits, is_first.astype(float)), of, paired=True, method="percentile", rng=4).confidence_interval
    assert ours["value"] == pytest.approx(of(hits, is_first.astype(float)))
    assert ours["low"] == pytest.approx(theirs.low, abs=5e-3)
    assert ours["high"] == pytest.approx(theirs.high, abs=5e-3)


def test_a_paired_interval_detects_a_small_steady_gain():
    rng = np.random.default_rng(0)
    words = np.full(200, 20)
    second = rng.binomial(20, rng.uniform(0.3, 1.0, 200))
    first = np.minimum(second + (rng.random(200) < 0.5), 20)
    gain = bootstrap_ratio(first, words).minus(bootstrap_ratio(second, words)).interval()
    assert gain["value"] == pytest.approx((first - second).sum() / 4000)
    assert gain["low"] > 0
    assert ratio_interval(first, words)["low"] < ratio_interval(second, words)["high"]


def test_no_gain_between_equals():
    runs = [bootstrap_ratio(hits, [5, 5, 5]) for hits in ([3, 4, 5], [5, 4, 3])]
    gain = bootstrap_mean(runs).minus(bootstrap_mean(runs[::-1]))
    assert gain.interval() == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_mean_of_ratios_ignores_a_tag_that_a_resample_lacks():
    tags = [bootstrap_ratio([1, 1, 1, 1], [1, 1, 1, 1]), bootstrap_ratio([0, 0, 0, 2], [0, 0, 0, 2])]
    assert bootstrap_mean(tags).interval() == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_many_items_are_drawn_in_blocks_with_the_same_result(monkeypatch):
    right, words = [1, 2, 3, 0, 5], [4, 4, 4, 4, 6]
    at_once = ratio_interval(right, words)
    monkeypatch.setattr(intervals, "MOST_WEIGHTS", 700)
    assert [len(block) for block in intervals._weights(5, 0)] == [140] * 14 + [40]
    assert ratio_interval(right, words) == at_once
