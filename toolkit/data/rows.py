"""Subsets of the rows of a `datasets.Dataset`: held out, evenly spaced, or a few labelled ones; hashes of rows."""

import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.data.cache import digest
from toolkit.errors import InputError

NOT_INPUT = ("label", "tags", "targets", "name", "group")  # columns of labelled rows


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


def content_of_rows(rows) -> str:
    """A hash of the values of all rows; of an image, only its name and the size of its file."""
    columns = {name: rows[name][:] for name in rows.column_names if name != "image"}
    if "image" in rows.column_names:
        columns["image"] = [_size_of(image) for image in rows["image"]]
    return digest(columns)


def _size_of(image: dict[str, Any]) -> int:
    if image["bytes"] is not None:
        return len(image["bytes"])
    return os.stat(image["path"]).st_size if os.path.exists(image["path"]) else 0


def num_repeated(rows, train_rows) -> int:
    """How many rows have the same input as a training row, whatever their label; of images, the same file."""
    if "image" not in rows.column_names:
        (name,) = set(rows.column_names).difference(NOT_INPUT)
        of_training = set(map(str, train_rows[name]))
        return sum(str(value) in of_training for value in rows[name])
    sizes = set(map(_size_of, train_rows["image"])).intersection(map(_size_of, rows["image"]))  # others are not read
    of_training = {_bytes_of(image) for image in train_rows["image"] if _size_of(image) in sizes}
    return sum(_size_of(image) in sizes and _bytes_of(image) in of_training for image in rows["image"])


def _bytes_of(image: dict[str, Any]) -> str:
    import xxhash

    content = image["bytes"]
    if content is None and os.path.exists(image["path"]):
        content = Path(image["path"]).read_bytes()
    return xxhash.xxh3_128(content or image["path"]).hexdigest()
