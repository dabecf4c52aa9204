#!/usr/bin/env python
"""Time a few-shot classifier of a thousand classes on one item, beside scikit-learn on the same features.

    python scripts/bench_classes.py [CLASSES] [SHOTS] [FEATURES] [ROUNDS]

Features are Gaussian: 1,000 classes of 5 examples with 384 features by default. Each figure is the median of 200 calls
in milliseconds; the two implementations take turns for ROUNDS (5). The peers are scikit-learn's NearestCentroid for
the method prototype, KNeighborsClassifier for nearest, and LogisticRegression for linear. Adding and removing a class
has no peer. Record: docs/results/bench_classes.json.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from benchmarking import alternate, write_record
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from toolkit.transfer.few_shot_classifier import FewShotClassifier

CALLS = 200


def milliseconds(call: Callable[[], Any], calls: int = CALLS) -> float:
    """The median time of a call."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main(classes: int = 1000, shots: int = 5, features: int = 384, rounds: int = 5) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), shots)
    items = (rng.normal(size=(classes, features))[labels] + rng.normal(size=(len(labels), features))).astype("float32")
    query = items[:1]
    peers = {
        "prototype": NearestCentroid(),
        "nearest": KNeighborsClassifier(1),
        "linear": LogisticRegression(max_iter=20),
    }
    record: dict[str, Any] = {"classes": classes, "shots": shots, "features": features, "milliseconds of one item": {}}
    for method, peer in peers.items():
        fitted = {
            "toolkit": FewShotClassifier(method=method).fit(items, labels),
            "scikit-learn": peer.fit(items, labels),
        }
        alternatives = {name: partial(milliseconds, partial(each.predict, query)) for name, each in fitted.items()}
        record["milliseconds of one item"][method] = alternate(alternatives, rounds)
    classifier = FewShotClassifier().fit(items, labels)

    def add_and_remove() -> None:
        classifier.add_class(classes, items[:shots]).remove_class(classes)

    record["milliseconds of a class that comes and goes"] = [milliseconds(add_and_remove, 10) for _ in range(rounds)]
    write_record("bench_classes", record)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
