"""Episodes: small classification problems drawn from labelled examples, by which few-shot learning is measured.

Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra (2016), "Matching networks for one shot learning",
https://arxiv.org/abs/1606.04080.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from toolkit.errors import InputError


class Episode(NamedTuple):
    """Places of examples, one row a class: those that are labelled, and those that are to be classified."""

    support: np.ndarray  # (ways, shots)
    query: np.ndarray  # (ways, queries)


def draw_episodes(
    labels: Sequence[Hashable] | np.ndarray,
    ways: int,
    shots: int,
    queries: int,
    num_episodes: int,
    seed: int,
    groups: Sequence[Hashable] | np.ndarray | None = None,
) -> Iterator[Episode]:
    """Episodes of `ways` classes, each with `shots` labelled examples and `queries` others.

    `labels` has the class of each example; with `groups`, such as alphabets, the classes of an episode are all of one
    group. Which examples an episode has follows from its number and the seed alone. Raises `InputError` where there
    are too few classes, or examples of one.
    """
    classes, ids = np.unique(np.asarray(labels), return_inverse=True)
    places = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids))[:-1])
    of_group: dict[Hashable, list[int]] = {None: list(range(len(classes)))}
    if groups is not None:
        names = np.asarray(groups)
        of_group = {}
        for index, members in enumerate(places):
            of_group.setdefault(names[members[0]], []).append(index)
    pools = [members for _, members in sorted(of_group.items(), key=str) if len(members) >= ways]
    if not pools:
        most = max(len(members) for members in of_group.values())
        where = " in a group" if groups is not None else ""
        raise InputError(f"there are {most} classes{where}, too few for {ways} ways; give fewer --ways")
    smallest = min(range(len(classes)), key=lambda index: len(places[index]))
    if len(places[smallest]) < shots + queries:
        raise InputError(
            f"the class {classes[smallest]} has {len(places[smallest])} examples, too few for {shots} labelled and "
            f"{queries} others; give fewer --shots or --queries"
        )
    for number in range(num_episodes):
        rng = np.random.default_rng((seed, number))
        pool = pools[int(rng.random() * len(pools))]
        chosen = [pool[place] for place in _some(rng, len(pool), ways)]
        examples = np.stack([places[index][_some(rng, len(places[index]), shots + queries)] for index in chosen])
        yield Episode(examples[:, :shots], examples[:, shots:])


def _some(rng: np.random.Generator, total: int, size: int) -> np.ndarray:
    """`size` different numbers below `total`, in random order."""
    return np.argsort(rng.random(total), kind="stable")[:size]
