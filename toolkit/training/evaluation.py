"""Every row once, in order, shared among processes: how a model is scored."""

from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from toolkit.training.distributed import gather_objects
from toolkit.training.loader import Batch, Collate, load_batches
from toolkit.training.sampler import SampleKey

EVALUATION_EPOCH = 2**31  # masks of held-out text are seeded as of an epoch that training never reaches


def evaluation_batches(
    rows, collate: Collate, batch_size: int, accelerator: Accelerator, in_step: bool = False
) -> Iterator[Batch]:
    """This process's batches of every row once, in order; processes take turns by batch. What in a batch is no tensor
    stays as it is.

    With `in_step` all processes get equally many batches, of which the last may not count: its `num_items` is 0.
    Processes that share the parameters of a model out among them can only compute together.
    """

    def keys() -> Iterator[list[SampleKey]]:
        for start in range(0, len(rows), accelerator.num_processes * batch_size):
            start += accelerator.process_index * batch_size
            if start < len(rows):
                yield [
                    SampleKey(0, EVALUATION_EPOCH, index) for index in range(start, min(start + batch_size, len(rows)))
                ]
            elif in_step:
                yield [SampleKey(0, EVALUATION_EPOCH, 0, counts=False)]

    for batch in load_batches(rows, keys(), collate):
        yield send_to_device(batch, accelerator.device)


def batches_in_order(rows, collate: Collate, batch_size: int) -> Iterator[Batch]:
    """Batches of all rows, in order, in this process."""
    starts = range(0, len(rows), batch_size)
    keys = ([SampleKey(0, 0, i) for i in range(start, min(start + batch_size, len(rows)))] for start in starts)
    return load_batches(rows, keys, collate)


@torch.no_grad()
def held_out_losses(model, rows, collate: Collate, batch_size: int, accelerator: Accelerator) -> np.ndarray:
    """(2, batches): of each batch the sum of the loss over its targets, and their number; all processes get all."""
    sums = []
    for batch in evaluation_batches(rows, collate, batch_size, accelerator, in_step=True):
        num_targets, num_items = batch.pop("num_targets"), batch.pop("num_items")
        loss = float(model(**batch).loss)
        if num_items:
            sums.append((loss * num_targets, num_targets))
    return np.array(gather_objects(accelerator, sums), dtype=np.float64).T


def held_out_loss(model, rows, collate: Collate, batch_size: int, accelerator: Accelerator) -> float:
    """The mean over all targets."""
    sums, counts = held_out_losses(model, rows, collate, batch_size, accelerator)
    return float(sums.sum() / counts.sum())
