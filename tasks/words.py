"""Which pieces of a tokenized text belong to which word, and word dropout.

Word dropout: Iyyer, Manjunatha, Boyd-Graber & Daumé (2015), https://aclanthology.org/P15-1162.
"""

from dataclasses import dataclass

import numpy as np

NO_WORD = -1


def words_of(encoding, index: int = 0) -> list[int]:
    """The word of each piece of a text that a tokenizer made, `NO_WORD` for [CLS] and its like."""
    return [NO_WORD if word is None else word for word in encoding.word_ids(index)]


def first_pieces(words: list[int]) -> list[int]:
    """Where each word begins."""
    return [i for i, word in enumerate(words) if word != NO_WORD and (i == 0 or word != words[i - 1])]


def padded_pieces(rows: list[dict], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """`input_ids` of the rows, padded on the right, and the mask of what is not padding; both (rows, pieces)."""
    lengths = np.array([len(row["input_ids"]) for row in rows])
    attention_mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(attention_mask.shape, pad_token_id)
    input_ids[attention_mask] = np.concatenate([row["input_ids"] for row in rows])
    return input_ids, attention_mask.astype(np.int64)


@dataclass(frozen=True)
class WordDropout:
    """Replaces each word of a row of features by the unknown word with probability `rate`, all its pieces by one."""

    rate: float
    unk_token_id: int
    seed: int

    def __call__(self, row: dict, draw) -> dict:
        from toolkit.batches import seed_of

        ids, words = row["input_ids"], row["words"]
        dropped = np.random.default_rng(seed_of(self.seed, draw)).random(max(words) + 1) < self.rate
        starts = set(first_pieces(words))
        kept = [i for i, word in enumerate(words) if word == NO_WORD or not dropped[word] or i in starts]
        is_dropped = [words[i] != NO_WORD and dropped[words[i]] for i in kept]
        return {
            **row,
            "input_ids": [self.unk_token_id if gone else ids[i] for i, gone in zip(kept, is_dropped, strict=True)],
            "words": [words[i] for i in kept],
        }
