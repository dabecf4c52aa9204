"""Which samples each step takes, and the key that seeds everything random about a sample.

The batch of a step, and every random choice within it, follow from the seed and the number of the step alone. So
processes need not communicate, no random state is saved, and a run resumes at any step without replaying the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np


@dataclass(frozen=True, slots=True)
class SampleKey:
    """Identifies one sample in one step of training."""

    step: int  # number of the optimizer step, from 0
    epoch: int  # number of the pass over the data, from 0
    index: int  # in the data set
    progress: float = 0.0  # fraction of the run that is complete when the step begins, from 0 to 1
    counts: bool = True  # False for a filler sample, which keeps a process without samples in step with the others
    continues: bool = False  # whether a recurrent model starts from its state for the same position of the last batch
    backwards: bool = False  # whether the last batch held the *next* sample of the text instead of the one before

    def seed(self, seed: int) -> tuple[int, int, int]:
        """The seed for everything random about this sample, for `numpy.random.default_rng`."""
        return seed, self.epoch, self.index


@dataclass
class BatchSampler:
    """Assigns samples to steps: one shuffled epoch after another, cut into batches.

    With `consecutive` > 1 as many neighbouring samples follow each other at the same position of as many batches,
    alternately from first to last and from last to first. Samples that do not fill such a run are skipped in that
    epoch.
    """

    num_samples: int
    batch_size: int  # over all processes
    seed: int
    lengths: Sequence[int] | None = None  # of each sample; if given, a batch holds samples of similar length
    max_samples: int | None = None  # of all steps together; the last step may be smaller than the others
    consecutive: int = 1
    shuffles: bool = True
    _orders: dict[int, np.ndarray] = field(default_factory=dict, init=False)

    BATCHES_SORTED_TOGETHER = 50

    def batch(self, step: int, progress: float = 0.0) -> list[SampleKey]:
        """The samples of one step, over all processes. `progress` is stored in every key."""
        size = self.batch_size
        if self.max_samples is not None and self.consecutive == 1:  # runs consist of whole batches
            size = min(size, self.max_samples - step * size)
        run, offset = divmod(step, self.consecutive)
        backwards = run % 2 == 1
        keys = []
        for position in range(run * self.batch_size, run * self.batch_size + size):
            epoch, place = divmod(position, self.num_samples // self.consecutive)
            index = int(self._order(epoch)[place]) + (self.consecutive - 1 - offset if backwards else offset)
            keys.append(SampleKey(step, epoch, index, progress, continues=offset > 0, backwards=backwards))
        return keys

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = self._shuffle(epoch)
        return self._orders[epoch]

    def _shuffle(self, epoch: int) -> np.ndarray:
        if not self.shuffles:
            return np.arange(self.num_samples)
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.num_samples // self.consecutive)  # of the runs of neighbours
        if self.lengths is None:
            return order * self.consecutive + rng.integers(self.num_samples % self.consecutive + 1)
        # The first batch of an epoch completes the last batch of the previous one.
        first = -epoch * self.num_samples % self.batch_size
        together = self.batch_size * self.BATCHES_SORTED_TOGETHER
        lengths, batches = np.asarray(self.lengths), [order[:first]]
        for start in range(first, self.num_samples, together):
            part = order[start : start + together]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += np.split(part, range(self.batch_size, len(part), self.batch_size))
        whole = [batch for batch in batches[1:] if len(batch) == self.batch_size]
        rest = [batch for batch in batches[1:] if len(batch) < self.batch_size]
        shuffled = [whole[i] for i in rng.permutation(len(whole))]
        return np.concatenate([batches[0], *shuffled, *rest])


def split_batch(keys: list[SampleKey], num_parts: int) -> list[list[SampleKey]]:
    """Split a batch into parts of nearly equal size. An empty part gets a filler sample that does not count."""
    bounds = np.linspace(0, len(keys), num_parts + 1).round().astype(int)
    parts = [keys[start:stop] for start, stop in pairwise(bounds)]
    return [part or [replace(keys[0], counts=False)] for part in parts]


def seed_torch(*numbers: int, cpu_only: bool = False) -> None:
    """Seed torch from numbers such as `SampleKey.seed` returns. With `cpu_only` it is a hundred times faster."""
    import torch

    seed = torch.default_generator.manual_seed if cpu_only else torch.manual_seed
    seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
