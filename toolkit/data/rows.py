"""Some rows of a `datasets.Dataset`: held out, spread over all, or so many labelled ones."""

import random
from collections import Counter
from collections.abc import Sequence

from toolkit.errors import InputError


def hold_out(rows, fraction: float):
    """Split off the last `fraction` of the rows, at least one: (train, validation)."""
    num_held_out = max(1, round(len(rows) * fraction))
    if num_held_out >= len(rows):
        raise InputError(f"the corpus has {len(rows)} rows, too few to hold out {num_held_out} for validation")
    return rows.select(range(len(rows) - num_held_out)), rows.select(range(len(rows) - num_held_out, len(rows)))


def spread(rows, size: int | None):
    """At most `size` rows, evenly spaced over all of them; all where `size` is None."""
    return rows if size is None else rows.select(range(0, len(rows), max(1, -(-len(rows) // size))))


def take_subset(rows, size: int | None, seed: int = 0, labels: Sequence[str] | None = None):
    """The first `size` rows of a shuffle that depends on `seed` alone: a larger subset holds every smaller one.

    With `labels`, one a row, the first `size` rows of each label, or all that it has.
    """
    if size is None:
        return rows
    if labels is None and size > len(rows):
        raise InputError(f"--train_size {size} is larger than the training data, which has {len(rows)} examples")
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    if labels is None:
        return rows.select(order[:size])
    counts: Counter[str] = Counter()
    chosen = []
    for row in order:
        if counts[labels[row]] < size:
            counts[labels[row]] += 1
            chosen.append(row)
    return rows.select(chosen)
