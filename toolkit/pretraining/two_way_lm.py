"""Two-way language model: guess the next word from those before it, and the previous word from those after it.

Peters et al. (2018), "Deep contextualized word representations", https://arxiv.org/abs/1802.05365. While training, a
word competes with a sample of the vocabulary instead of all of it (Jean et al. 2015, https://arxiv.org/abs/1412.2007).
"""

from dataclasses import dataclass

import numpy as np
import torch

from toolkit.training.batches import Batch, Draw


@dataclass
class PredictNeighbours:
    """Collates windows of words. With `num_negatives`, every process of a step gets the same sample of words.

    With `consecutive` windows a step's follow those of the step before, so many in a row: one direction reads on with
    the state that it had at their end. The other cannot, since what it reads first comes last; they take turns.
    """

    pad_token_id: int
    boundary_id: int  # the output word that ends a line
    output_vocab_size: int
    seed: int
    num_negatives: int | None = None
    consecutive: int = 1

    def __call__(self, rows: list[dict], draws: list[Draw]) -> Batch:
        input_ids = _padded([row["input_ids"] for row in rows], self.pad_token_id)
        labels = _padded([row["labels"] for row in rows], -100)
        batch = {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy((input_ids != self.pad_token_id).astype(np.int64)),
            "labels": torch.from_numpy(labels),
            "num_targets": int((labels[:, 1:] != -100).sum() + (labels[:, :-1] != -100).sum()),
            "num_items": int(((labels != -100) & (labels != self.boundary_id)).sum()),
        }
        if self.consecutive > 1:
            batch["reads_on"] = "backwards" if draws[0].backwards else "forwards"
            batch["continues"] = draws[0].continues
        if self.num_negatives:
            sample, log_counts = sample_negatives(
                self.output_vocab_size, self.num_negatives, (self.seed, draws[0].step)
            )
            batch |= {"negatives": torch.from_numpy(sample), "negative_log_counts": torch.from_numpy(log_counts)}
        return batch


def sample_negatives(vocab_size: int, num_negatives: int, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct words, drawn by Zipf's law from a vocabulary sorted by frequency.

    Returns the words, (num_negatives,) int64, and for every word of the vocabulary the log of the number of times that
    it is expected in such a sample, (vocab_size,) float32.
    """
    num_negatives = min(num_negatives, vocab_size)
    rng = np.random.default_rng(seed)
    drawn = np.empty(0, dtype=np.int64)
    while True:
        # Word k is drawn with probability log((k + 2) / (k + 1)) / log(vocab_size + 1).
        more = (vocab_size + 1) ** rng.random(4 * num_negatives) - 1
        drawn = np.concatenate([drawn, more.astype(np.int64).clip(0, vocab_size - 1)])
        distinct, first = np.unique(drawn, return_index=True)
        if len(distinct) >= num_negatives:
            break
    order = np.argsort(first)[:num_negatives]
    num_draws = first[order[-1]] + 1
    words = np.arange(vocab_size)
    probabilities = np.log((words + 2) / (words + 1)) / np.log(vocab_size + 1)
    counts = -np.expm1(num_draws * np.log1p(-probabilities))
    return distinct[order], np.log(counts).astype(np.float32)


def _padded(sequences: list[list[int]], value: int) -> np.ndarray:
    padded = np.full((len(sequences), max(map(len, sequences))), value)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded
