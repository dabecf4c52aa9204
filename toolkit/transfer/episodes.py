"""Episodes: small classification problems sampled from labelled examples, the usual test of few-shot learning.

Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra (2016), "Matching networks for one shot learning",
https://arxiv.org/abs/1606.04080.
"""

from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from toolkit.errors import InputError


class Episode(NamedTuple):
    """Indices of examples, one row per class."""

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
    """Sample episodes of `ways` classes with `shots` labelled examples and `queries` examples to classify each.

    The examples of an episode depend on its number and the seed alone. With `groups`, the group of each example such
    as its alphabet or speaker, all examples of an episode are of one group, and a class of a group with too few
    examples is left out. Raises `InputError` if there are too few classes, or if a class has too few examples.
    """
    names = None if groups is None else np.asarray(groups)
    classes, ids = np.unique(np.asarray(labels), return_inverse=True)
    if names is not None:  # a class of one group is another one than the same class of another group
        group_ids = np.unique(names, return_inverse=True)[1]
        pairs, ids = np.unique(np.stack([ids, group_ids]), axis=1, return_inverse=True)
        classes = classes[pairs[0]]
    indices = np.split(np.argsort(ids, kind="stable"), np.cumsum(np.bincount(ids))[:-1])
    of_group: dict[Hashable, list[int]] = {}
    for class_id, members in enumerate(indices):
        if names is not None and len(members) < shots + queries:
            continue
        of_group.setdefault(None if names is None else names[members[0]], []).append(class_id)
    pools = [members for _, members in sorted(of_group.items(), key=str) if len(members) >= ways]
    if not pools:
        most = max((len(members) for members in of_group.values()), default=0)
        where = " in a group" if groups is not None else ""
        raise InputError(f"there are {most} classes{where}, too few for {ways} ways; give fewer --ways")
    smallest = min(chain(*pools), key=lambda class_id: len(indices[class_id]))
    if len(indices[smallest]) < shots + queries:
        raise InputError(
            f"the class {classes[smallest]} has {len(indices[smallest])} examples, too few for {shots} labelled and "
            f"{queries} others; give fewer --shots or --queries"
        )
    for number in range(num_episodes):
        rng = np.random.default_rng((seed, number))
        pool = pools[int(rng.random() * len(pools))]
        of_classes = [indices[pool[i]] for i in _sample(rng, len(pool), ways)]
        examples = np.stack([members[_sample(rng, len(members), shots + queries)] for members in of_classes])
        yield Episode(examples[:, :shots], examples[:, shots:])


def _sample(rng: np.random.Generator, total: int, size: int) -> np.ndarray:
    """`size` different indices below `total`, in random order."""
    return np.argsort(rng.random(total), kind="stable")[:size]
