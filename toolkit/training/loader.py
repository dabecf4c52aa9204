"""Load the samples of each step and collate them into batches, in worker processes if asked for.

A batch is the keyword arguments of the model's `forward`, plus two numbers that the loop removes first: `num_targets`,
the number of targets that the loss is the mean over, and `num_items`, the tokens, words or images by which throughput
is counted. If the batch has a true `continues`, the model also gets the `state` that it returned for the batch before.
"""

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from toolkit.errors import InputError
from toolkit.training.sampler import SampleKey
from toolkit.training.signals import SIGNALS

Batch = dict[str, Any]
CollateFn = Callable[[list[dict], list[SampleKey]], Batch]
WORKER_GRACE_SECONDS = 600  # after SIGTERM to the whole job, the training process may still finish a step and save


class StreamedDataset(ABC):
    """A data set that is read in an order of its own: `SampleKey.index` is the position in the epoch's order."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def read(self, keys: list[SampleKey]) -> list[dict]:
        """The samples of these keys."""


class KeyedDataset:
    """A map-style data set indexed by lists of `SampleKey`; yields `(sample, key)` pairs."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitems__(self, keys: list[SampleKey]) -> list[tuple[dict, SampleKey]]:
        if isinstance(self.dataset, StreamedDataset):
            samples = self.dataset.read(keys)
        elif isinstance(self.dataset, list):
            samples = [self.dataset[key.index] for key in keys]
        else:
            samples = self.dataset.__getitems__([key.index for key in keys])
        return list(zip(samples, keys, strict=True))


def collate_pairs(collate: CollateFn, pairs: list[tuple[dict, SampleKey]]) -> Batch:
    """Collate `(sample, key)` pairs. A batch of filler samples has no targets and no items."""
    keys = [key for _, key in pairs]
    batch = collate([sample for sample, _ in pairs], keys)
    if not keys[0].counts:
        batch["num_targets"] = batch["num_items"] = 0
    return batch


def load_batches(
    dataset, batches: Iterable[list[SampleKey]], collate: CollateFn, num_workers: int = 0
) -> Generator[Batch, None, None]:
    """Load and collate the samples of each list of keys, in this process if `num_workers` is 0.

    `close` ends the worker processes, which do not end by the signals of the whole job.

    Raises `InputError` if a sample of the data set cannot be read, also in a worker process.
    """
    loader: DataLoader = DataLoader(
        KeyedDataset(dataset),  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=partial(collate_pairs, collate),
        num_workers=num_workers,
        worker_init_fn=start_worker,
    )
    return _with_plain_errors(iter(loader))  # `iter` draws a random number: do it now, not at the first batch


def _with_plain_errors(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    try:
        yield from batches
        return
    except InputError as error:
        message = str(error).rpartition("InputError: ")[2].strip()  # torch prepends the worker's traceback
    del batches  # its worker processes end once no traceback refers to it any more
    raise InputError(message)


def start_worker(worker: int) -> None:
    """Let a worker outlive signals to the whole job until the training process has finished its step and saved.

    The worker ends with the training process, however that ended. Torch compares the id of the parent process instead,
    which is that of a server if the worker was started by one (the start method forkserver, Python 3.14's default).
    """
    threading.Thread(target=_exit_after, args=(multiprocessing.parent_process(),), daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE_SECONDS))


def _exit_after(training_process) -> None:
    training_process.join()
    os._exit(1)
