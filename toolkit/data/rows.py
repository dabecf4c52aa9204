"""Subsets of the rows of a `datasets.Dataset`: held out, evenly spaced, or a few labelled ones."""

import random
from collections import Counter
from collections.abc import Sequence

from toolkit.errors import InputError


def num_held_out(num_rows: int, fraction: float) -> int:
    """How many rows to hold out, at least one. Raises `InputError` if none would be left to train on."""
    size = max(1, round(num_rows * fraction))
    if size >= num_rows:
        raise InputError(f"the corpus has {num_rows} rows, too few to hold out {size} for validation")
    return size


def hold_out(rows, fraction: float):
    """Split off the last `fraction` of the rows, at least one: (train, validation)."""
    cut = len(rows) - num_held_out(len(rows), fraction)
    return rows.select(range(cut)), rows.select(range(cut, len(rows)))


def spread(rows, size: int | None):
    """At most `size` rows, evenly spaced over all of them; all if `size` is None."""
    return rows if size is None else rows.select(range(0, len(rows), max(1, -(-len(rows) // size))))


def take_subset(rows, size: int | None, seed: int = 0, labels: Sequence[str] | None = None):
    """The first `size` rows of a shuffle that depends on the seed alone, so that larger subsets contain smaller ones.

    With the label of each row as `labels`, the first `size` rows of each label, which may have fewer. Without them,
    raises `InputError` if there are fewer than `size` rows.
    """
    if size is None:
        return rows
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    if labels is None:
        if size > len(rows):
            raise InputError(f"--train_size {size} is larger than the training data, which has {len(rows)} examples")
        return rows.select(order[:size])
    counts: Counter[str] = Counter()
    chosen = []
    for row in order:
        if counts[labels[row]] < size:
            counts[labels[row]] += 1
            chosen.append(row)
    return rows.select(chosen)
