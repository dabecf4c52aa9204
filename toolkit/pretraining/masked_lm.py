"""Masked language model: guess the words that were hidden, from both sides.

Devlin, Chang, Lee & Toutanova (2019), "BERT: pre-training of deep bidirectional transformers for language
understanding", https://arxiv.org/abs/1810.04805.
"""

from dataclasses import dataclass

import numpy as np
import torch

from toolkit.training.batches import Batch, Draw, seed_of

MASKED_SHARE = 0.15


@dataclass
class MaskTokens:
    """Collates windows of tokens: of 15% of them, 80% become [MASK], 10% a random token, 10% stay; all are targets.

    `shares` at the start and at the end of a run take the place of 15%; in between the share changes linearly. With
    `continues` (vocab_size,), which tokens go on with a word, all tokens of a word are targets or none is. With
    `cls_token_id`, which begins each sequence of packed windows, a batch has `sequence_ids`, zero for padding, in
    place of `attention_mask`.
    """

    pad_token_id: int
    mask_token_id: int
    special_token_ids: list[int]
    vocab_size: int
    seed: int
    shares: tuple[float, float] = (MASKED_SHARE, MASKED_SHARE)
    continues: np.ndarray | None = None
    cls_token_id: int | None = None

    FATES = (0.8, 0.9)  # of a target: below the first it becomes [MASK], below the second a random token

    def __call__(self, rows: list[dict], draws: list[Draw]) -> Batch:
        width = max(len(row["input_ids"]) for row in rows)
        input_ids = np.full((len(rows), width), self.pad_token_id)
        labels = np.full((len(rows), width), -100)
        sequence_ids = np.zeros((len(rows), width), dtype=np.int64)
        for i, (row, draw) in enumerate(zip(rows, draws, strict=True)):
            ids = np.asarray(row["input_ids"])
            share = self.shares[0] + draw.progress * (self.shares[1] - self.shares[0])
            input_ids[i, : len(ids)], labels[i, : len(ids)] = self.mask(ids, seed_of(self.seed, draw), share)
            sequence_ids[i, : len(ids)] = 1 if self.cls_token_id is None else np.cumsum(ids == self.cls_token_id)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask" if self.cls_token_id is None else "sequence_ids": torch.from_numpy(sequence_ids),
            "labels": torch.from_numpy(labels),
            "num_targets": int((labels != -100).sum()),
            "num_items": sum(len(row["input_ids"]) for row in rows),
        }

    def mask(
        self, ids: np.ndarray, seed: tuple[int, ...], share: float = MASKED_SHARE
    ) -> tuple[np.ndarray, np.ndarray]:
        """`ids` (time,) -> the masked ids and the labels, -100 where there is no target. At least one is a target."""
        rng = np.random.default_rng(seed)
        candidates = np.flatnonzero(~np.isin(ids, self.special_token_ids))
        num_targets = max(1, round(share * len(candidates)))
        if self.continues is None:
            chosen = rng.permutation(candidates)[:num_targets]
        else:
            words = np.cumsum(~self.continues[ids])[candidates]
            chosen = candidates[_whole_words(words, num_targets, rng)]
        labels = np.full(len(ids), -100)
        labels[chosen] = ids[chosen]
        masked = ids.copy()
        fate = rng.random(len(chosen))
        masked[chosen[fate < self.FATES[0]]] = self.mask_token_id
        replaced = chosen[(fate >= self.FATES[0]) & (fate < self.FATES[1])]
        masked[replaced] = rng.integers(len(self.special_token_ids), self.vocab_size, len(replaced))
        return masked, labels


def _whole_words(words: np.ndarray, num_tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Which tokens are in random words of `num_tokens` tokens or a little less, at least one word. `words` (tokens,)
    are the numbers of their words."""
    order = rng.permutation(np.unique(words))
    sizes = np.bincount(words)[order]
    num_words = max(1, np.searchsorted(np.cumsum(sizes), num_tokens, side="right"))
    return np.isin(words, order[:num_words])


def count_tokens(rows, vocab_size: int) -> np.ndarray:
    """(vocab_size,): how often each token occurs in `rows`, windows with `input_ids`."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for batch in rows.with_format("arrow").iter(1000):
        counts += np.bincount(batch["input_ids"].combine_chunks().flatten(), minlength=vocab_size)
    return counts
