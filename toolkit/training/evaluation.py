"""Evaluate a model: each sample once, in order, divided among the processes."""

from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device

from toolkit.training.loader import Batch, CollateFn, load_batches
from toolkit.training.sampler import SampleKey

EVALUATION_EPOCH = 2**31  # held-out text is masked with the seeds of an epoch that training never reaches


def evaluation_batches(
    dataset,
    collate: CollateFn,
    batch_size: int,
    accelerator: Accelerator,
    lockstep: bool = False,
    with_samples: bool = False,
) -> Iterator[Batch]:
    """Batches of the data set, dealt to the processes in turn. Values that are not tensors stay as they are.

    With `lockstep` all processes get the same number of batches, because processes with a sharded model can only
    compute together; the last batch may be a filler, with `num_items` 0. `with_samples` adds `samples`, the list that
    a batch was collated from.
    """

    def keys() -> Iterator[list[SampleKey]]:
        for first in range(0, len(dataset), accelerator.num_processes * batch_size):
            start = first + accelerator.process_index * batch_size
            if indices := range(len(dataset))[start : start + batch_size]:
                yield [SampleKey(0, EVALUATION_EPOCH, index) for index in indices]
            elif lockstep:
                yield [SampleKey(0, EVALUATION_EPOCH, 0, counts=False)]

    def collate_with_samples(samples: list, keys: list[SampleKey]) -> Batch:
        return {**collate(samples, keys), "samples": samples}

    for batch in load_batches(dataset, keys(), collate_with_samples if with_samples else collate):
        samples = {"samples": batch.pop("samples")} if with_samples else {}  # no tensors, but many lists to search
        yield {**send_to_device(batch, accelerator.device), **samples}


def batches_in_order(dataset, collate: CollateFn, batch_size: int) -> Iterator[Batch]:
    """Batches of the whole data set, in this process, on the CPU."""
    starts = range(0, len(dataset), batch_size)
    keys = ([SampleKey(0, 0, i) for i in range(start, min(start + batch_size, len(dataset)))] for start in starts)
    return load_batches(dataset, keys, collate)


@torch.no_grad()
def held_out_losses(model, dataset, collate: CollateFn, batch_size: int, accelerator: Accelerator) -> np.ndarray:
    """The loss of each batch summed over its targets, and its number of targets: (2, batches), on all processes."""
    sums = []
    for batch in evaluation_batches(dataset, collate, batch_size, accelerator, lockstep=True):
        num_targets, num_items = batch.pop("num_targets"), batch.pop("num_items")
        loss = float(model(**batch).loss)
        if num_items:
            sums.append((loss * num_targets, num_targets))
    return np.array(gather_object(sums), dtype=np.float64).T


def held_out_loss(model, dataset, collate: CollateFn, batch_size: int, accelerator: Accelerator) -> float:
    """The mean loss per target over the data set."""
    sums, counts = held_out_losses(model, dataset, collate, batch_size, accelerator)
    return float(sums.sum() / counts.sum())
