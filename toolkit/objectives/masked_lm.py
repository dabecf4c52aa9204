"""Masked language model: guess the words that were hidden, from both sides.

Devlin, Chang, Lee & Toutanova (2019), "BERT: pre-training of deep bidirectional transformers for language
understanding", https://arxiv.org/abs/1810.04805.
"""

from dataclasses import dataclass

import numpy as np
import torch

from toolkit.errors import InputError
from toolkit.tokenization import CONTINUATION, encode_lines
from toolkit.training import Batch, Draw, seed_of

MASKED_SHARE = 0.15


@dataclass
class MaskTokens:
    """Collates windows of tokens: of 15% of them, 80% become [MASK], 10% a random token, 10% stay; all are targets.

    `shares` at the start and at the end of a run take the place of 15%; in between the share changes linearly. With
    `continues` (vocab_size,), which tokens go on with a word, all tokens of a word are targets or none is.
    """

    pad_token_id: int
    mask_token_id: int
    special_token_ids: list[int]
    vocab_size: int
    seed: int
    shares: tuple[float, float] = (MASKED_SHARE, MASKED_SHARE)
    continues: np.ndarray | None = None

    def __call__(self, rows: list[dict], draws: list[Draw]) -> Batch:
        width = max(len(row["input_ids"]) for row in rows)
        input_ids = np.full((len(rows), width), self.pad_token_id)
        labels = np.full((len(rows), width), -100)
        attention_mask = np.zeros((len(rows), width), dtype=np.int64)
        for i, (row, draw) in enumerate(zip(rows, draws, strict=True)):
            ids = np.asarray(row["input_ids"])
            share = self.shares[0] + draw.progress * (self.shares[1] - self.shares[0])
            input_ids[i, : len(ids)], labels[i, : len(ids)] = self.mask(ids, seed_of(self.seed, draw), share)
            attention_mask[i, : len(ids)] = 1
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "labels": torch.from_numpy(labels),
            "num_targets": int((labels != -100).sum()),
            "num_items": int(attention_mask.sum()),
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
        masked[chosen[fate < 0.8]] = self.mask_token_id
        replaced = chosen[(fate >= 0.8) & (fate < 0.9)]
        masked[replaced] = rng.integers(len(self.special_token_ids), self.vocab_size, len(replaced))
        return masked, labels


def _whole_words(words: np.ndarray, num_tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Which tokens are in random words of `num_tokens` tokens or a little less, at least one word. `words` (tokens,)
    are the numbers of their words."""
    order = rng.permutation(np.unique(words))
    sizes = np.bincount(words)[order]
    num_words = max(1, np.searchsorted(np.cumsum(sizes), num_tokens, side="right"))
    return np.isin(words, order[:num_words])


def windows(rows, tokenizer, max_length: int):
    """Lines joined with [SEP] and cut into `[CLS] … ` of `max_length` tokens: a data set with `input_ids`.

    A window without any token that can be a target is left out.
    """
    special = set(tokenizer.all_special_ids)

    def cut(batch: dict[str, list[str]]) -> dict[str, list]:
        ids = [token for line in encode_lines(tokenizer, batch["text"]) for token in [*line, tokenizer.sep_token_id]]
        starts = range(0, len(ids), max_length - 1)
        pieces = [[tokenizer.cls_token_id, *ids[start : start + max_length - 1]] for start in starts]
        return {"input_ids": [piece for piece in pieces if not special.issuperset(piece)]}

    return rows.map(cut, batched=True, remove_columns=rows.column_names, desc="tokenizing")


def continuing_tokens(tokenizer) -> np.ndarray:
    """(vocab_size,): whether a token goes on with the word of the token before it, which its ## says.

    Raises `InputError` where no token does.
    """
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    continues = np.array([piece.startswith(CONTINUATION) and piece != CONTINUATION for piece in pieces])
    if not continues.any():
        raise InputError("--whole_word_mask: the tokenizer does not mark the pieces that continue a word with ##")
    return continues


def count_tokens(rows, vocab_size: int) -> np.ndarray:
    """(vocab_size,): how often each token occurs in `rows`, windows with `input_ids`."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for batch in rows.with_format("arrow").iter(1000):
        counts += np.bincount(batch["input_ids"].combine_chunks().flatten(), minlength=vocab_size)
    return counts
