"""Which examples a step takes, and how they become batches.

Which examples a step takes and what is random about them follows from the seed and the number of the step alone: no
process has to tell another, and nothing of it has to be saved.

A batch is what a model's `forward` takes, plus two numbers that are taken out of it first: `num_targets`, what its
loss is the mean over, and `num_items`, the tokens, words or images by which throughput is counted. Where it also has a
true `continues`, the model gets the `state` that it gave for the batch before.
"""

import multiprocessing
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from toolkit.errors import InputError
from toolkit.training.signals import SIGNALS

Batch = dict[str, Any]
WORKER_GRACE_SECONDS = 600  # longer than a step and a save take, that a signal to the whole job lets finish


class Draw(NamedTuple):
    """One example of one step: `seed_of(seed, draw)` seeds all that is random about it."""

    step: int
    epoch: int
    example: int
    progress: float = 0.0  # of the run when the step begins, from 0 to 1
    counts: bool = True  # False for an example that only keeps a process without any in step with the others
    continues: bool = False  # the example at this place of the batch before
    backwards: bool = False  # the example of the batch before is the next one, not the last one


Collate = Callable[[list[dict], list[Draw]], Batch]


class ExampleStream:
    """Which examples each step takes: the epochs' shuffles, one after the other, cut into batches.

    With `lengths`, batches hold examples of similar length. Every example comes once an epoch. With `consecutive`,
    so many neighbours come one after the other at the same place of as many batches, by turns from the first to the
    last and from the last to the first; only what is left of such runs does not come in an epoch. Without `shuffles`
    examples come in their own order.
    """

    BATCHES_SORTED_TOGETHER = 50

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        seed: int,
        lengths: Sequence[int] | None = None,
        max_examples: int | None = None,
        consecutive: int = 1,
        shuffles: bool = True,
    ):
        self.shuffles = shuffles
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.consecutive = consecutive
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.max_examples = max_examples
        self._orders: dict[int, np.ndarray] = {}

    def draws(self, step: int) -> list[Draw]:
        """The examples of one step, over all processes."""
        size = self.batch_size
        if self.max_examples is not None and self.consecutive == 1:  # runs are of whole batches
            size = min(size, self.max_examples - step * size)
        turn, offset = divmod(step, self.consecutive)
        backwards = turn % 2 == 1
        draws = []
        for position in range(turn * self.batch_size, turn * self.batch_size + size):
            epoch, place = divmod(position, self.num_examples // self.consecutive)
            example = int(self._order(epoch)[place]) + (self.consecutive - 1 - offset if backwards else offset)
            draws.append(Draw(step, epoch, example, continues=offset > 0, backwards=backwards))
        return draws

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = self._shuffle(epoch)
        return self._orders[epoch]

    def _shuffle(self, epoch: int) -> np.ndarray:
        if not self.shuffles:
            return np.arange(self.num_examples)
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.num_examples // self.consecutive)  # of the runs of neighbours
        if self.lengths is None:
            return order * self.consecutive + rng.integers(self.num_examples % self.consecutive + 1)
        # The first batch of an epoch is what the last epoch left of a batch.
        first = -epoch * self.num_examples % self.batch_size
        together = self.batch_size * self.BATCHES_SORTED_TOGETHER
        batches = [order[:first]]
        for start in range(first, self.num_examples, together):
            part = order[start : start + together]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += np.split(part, range(self.batch_size, len(part), self.batch_size))
        whole = [batch for batch in batches[1:] if len(batch) == self.batch_size]
        rest = [batch for batch in batches[1:] if len(batch) < self.batch_size]
        shuffled = [whole[i] for i in rng.permutation(len(whole))]
        return np.concatenate([batches[0], *shuffled, *rest])


def seed_of(seed: int, draw: Draw) -> tuple[int, int, int]:
    """The seed for whatever is random about one example, for `numpy.random.default_rng`."""
    return seed, draw.epoch, draw.example


def seed_torch(*address: int) -> None:
    """Let torch's generators start from numbers such as `seed_of` gives."""
    torch.manual_seed(_number(address))


def seed_cpu(*address: int) -> None:
    """The same for that of the CPU alone, a hundred times faster."""
    torch.default_generator.manual_seed(_number(address))


def _number(address: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(address).generate_state(1, np.uint64)[0])


class RowStream(ABC):
    """Rows that come in an order of their own, one epoch after the other: `example` of a draw is the place in it."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, draws: list[Draw]) -> list[dict]: ...


class _AddressedRows:
    """A map-style data set addressed by `Draw`: `(row, draw)`."""

    def __init__(self, rows):
        self.rows = rows

    def __getitems__(self, draws: list[Draw]) -> list[tuple[dict, Draw]]:
        if isinstance(self.rows, RowStream):
            return list(zip(self.rows.read(draws), draws, strict=True))
        columns = self.rows[[draw.example for draw in draws]]
        rows = ({name: values[i] for name, values in columns.items()} for i in range(len(draws)))
        return list(zip(rows, draws, strict=True))


def collate_pairs(collate: Collate, pairs: list[tuple[dict, Draw]]) -> Batch:
    draws = [draw for _, draw in pairs]
    batch = collate([row for row, _ in pairs], draws)
    if not draws[0].counts:
        batch["num_targets"] = batch["num_items"] = 0
    return batch


def load_batches(rows, draws: Iterable[list[Draw]], collate: Collate, num_workers: int = 0) -> Iterator[Batch]:
    """Raises `InputError` where rows cannot be read, also by another process."""
    loader: DataLoader = DataLoader(
        _AddressedRows(rows),  # type: ignore[arg-type]
        batch_sampler=draws,
        collate_fn=partial(collate_pairs, collate),
        num_workers=num_workers,
        worker_init_fn=start_worker,
    )
    return _with_plain_errors(iter(loader))  # which draws a random number now, not when the first batch is taken


def _with_plain_errors(batches: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from batches
        return
    except InputError as error:
        message = str(error).rpartition("InputError: ")[2].strip()  # torch puts the traceback of its process before it
    del batches  # whose processes end with it, once no traceback knows it any more
    raise InputError(message)


def start_worker(worker: int) -> None:
    """Signals reach a whole job: a worker goes on until the training process has finished its step and saved.

    It ends at once if that process was killed before: torch's workers only notice what happens from now on.
    """
    training_process = multiprocessing.parent_process()
    if training_process is not None and not training_process.is_alive():
        os._exit(1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE_SECONDS))


def split_draws(draws: list[Draw], num_parts: int) -> list[list[Draw]]:
    """Cut a batch into parts of nearly equal size; one that would be empty gets an example that does not count."""
    bounds = np.linspace(0, len(draws), num_parts + 1).round().astype(int)
    parts = [draws[start:stop] for start, stop in pairwise(bounds)]
    return [part or [draws[0]._replace(counts=False)] for part in parts]
