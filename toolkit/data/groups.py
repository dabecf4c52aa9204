"""Splits that keep groups, such as the recordings of a speaker, apart: a model is tested on groups it never saw."""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from toolkit.data.sources import Source
from toolkit.data.splits import SPLIT_NAMES, DataFiles, split_named
from toolkit.errors import InputError

VALIDATION_SHARE = 0.1  # of the rows, that the groups of the validation split have at least
NUM_SHOWN = 20


def keep_apart(source: Source, column: str, test_groups: Sequence[str] | None) -> Source:
    """The source, whose rows have a `group`, with splits that share no group.

    With `test_groups` all rows of these groups are tested on, and the splits of the source are ignored; without, the
    splits of the source are kept. Whole groups are held out for validation unless the source has such a split.
    Loading raises `InputError` if there are too few groups, one is unknown, or splits of the source share one.
    """

    @cache
    def splits() -> dict[str, Any]:
        return _by_groups(source, column, test_groups)

    is_test_only = test_groups is None and source.splits == ("test",)
    names = [] if is_test_only else ["train", "validation"]
    found = DataFiles.named(*names, *(["test"] if test_groups is not None or "test" in source.splits else []))
    found.left_out = source.found.left_out

    def load(split: str | None):
        name, there = split_named(split or "train"), splits()
        if name not in there:
            raise InputError(f"{source.name}: no split '{name}' in it, found {', '.join(there)}")
        return there[name]

    return Source(source.name, found, load, source.declared_labels)


def _by_groups(source: Source, column: str, test_groups: Sequence[str] | None) -> dict[str, Any]:
    import datasets

    parts = {split: source.load(split) for split in source.splits} or {"train": source.load(None)}
    if test_groups is not None:
        rows, tested = datasets.concatenate_datasets(list(parts.values())), set(test_groups)
        if unknown := sorted(tested - set(rows["group"])):
            there_are = ", ".join(sorted(set(rows["group"]))[:NUM_SHOWN])
            raise InputError(f"--test_groups {' '.join(unknown)}: not in {column} of {source.name}, found {there_are}")
        is_tested = [group in tested for group in rows["group"]]
        parts = {"train": _select(rows, is_tested, False), "test": _select(rows, is_tested, True)}
    _check_apart(source.name, column, parts)
    if "validation" not in parts and "train" in parts:
        rows = parts["train"]
        held_out = _choose_groups(rows["group"][:])
        if not held_out:
            only = ", ".join(sorted(set(rows["group"]))) or "none"
            raise InputError(
                f"--group_column {column}: of {source.name}, {only} is left to train on; expected two or more, of "
                "which one is held out for validation"
            )
        is_held_out = [group in held_out for group in rows["group"]]
        parts |= {"train": _select(rows, is_held_out, False), "validation": _select(rows, is_held_out, True)}
    return {split: parts[split] for split in SPLIT_NAMES if split in parts}


def _select(rows, is_chosen: Sequence[bool], value: bool):
    return rows.select([index for index, chosen in enumerate(is_chosen) if chosen == value])


def _check_apart(source: str, column: str, parts: dict[str, Any]) -> None:
    split_of: dict[str, str] = {}
    for split, rows in parts.items():
        for group in sorted(set(rows["group"])):
            if (other := split_of.setdefault(group, split)) != split:
                raise InputError(
                    f"--group_column {column}: {group} is in {other} and in {split} of {source}; name those to test "
                    "on with --test_groups"
                )


def _choose_groups(groups: Sequence[str]) -> set[str]:
    """Groups, chosen at random, that together have a tenth of the rows but not most; none if there is one group."""
    counts = Counter(groups)
    order = sorted(counts)
    random.Random(0).shuffle(order)
    chosen: set[str] = set()
    num_chosen = 0
    for group in order:
        if num_chosen < VALIDATION_SHARE * len(groups) and 2 * (num_chosen + counts[group]) <= len(groups):
            chosen.add(group)
            num_chosen += counts[group]
    return chosen if chosen or len(counts) < 2 else {min(order, key=counts.__getitem__)}
