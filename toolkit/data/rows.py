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
OF_FILES = {"image", "audio"}  # columns that hold the bytes or the path of a file


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
    """A hash of the values of all rows; of an image or recording, only its name and the size of its file."""
    columns = {name: rows[name][:] for name in rows.column_names if name not in OF_FILES}
    for name in OF_FILES.intersection(rows.column_names):
        columns[name] = [_size_of(file) for file in rows[name]]
    return digest(columns)


def _size_of(file: dict[str, Any]) -> int:
    if file["bytes"] is not None:
        return len(file["bytes"])
    return os.stat(file["path"]).st_size if os.path.exists(file["path"]) else 0


def num_repeated(rows, train_rows) -> int:
    """How many rows have the same input as a training row, whatever their label; of files, the same bytes."""
    (name,) = set(rows.column_names).difference(NOT_INPUT)
    if name not in OF_FILES:
        of_training = set(map(str, train_rows[name]))
        return sum(str(value) in of_training for value in rows[name])
    sizes = set(map(_size_of, train_rows[name])).intersection(map(_size_of, rows[name]))  # others are not read
    of_training = {content_of(file) for file in train_rows[name] if _size_of(file) in sizes}
    return sum(_size_of(file) in sizes and content_of(file) in of_training for file in rows[name])


def content_of(item: Any) -> str:
    """A text itself, or a hash of the bytes of a file: the same for equal items."""
    import xxhash

    if isinstance(item, str):
        return item
    content = item["bytes"]
    if content is None and os.path.exists(item["path"]):
        content = Path(item["path"]).read_bytes()
    return xxhash.xxh3_128(content or item["path"]).hexdigest()
