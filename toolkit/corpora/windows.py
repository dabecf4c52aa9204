"""Recipes that cut a corpus into the windows which language models read. Loads no torch, for processes to be small."""

from bisect import bisect_left, insort
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from toolkit.corpora.arguments import Packing
from toolkit.corpora.corpus import digest
from toolkit.corpora.prepared import lists_of
from toolkit.corpora.tokenization import FIRST_CONTINUATION_ID, LineEncoder, key_of


class PieceWindows:
    """Texts become windows of at most `max_length` tokens, `input_ids`.

    Without packing lines are joined with [SEP] and cut into `[CLS] … `. Packed, a window holds whole lines, each as
    `[CLS] … [SEP]`; of lines that are longer than a window it holds parts. What has no token that can be a target is
    left out.
    """

    def __init__(self, tokenizer, max_length: int, packing: Packing = "none"):
        self.key = digest("pieces", key_of(tokenizer), tokenizer.all_special_ids, max_length, packing)
        self.encode, self.max_length, self.packing = LineEncoder(tokenizer), max_length, packing
        self.cls, self.sep, self.special = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.all_special_ids
        self.dtype = np.min_scalar_type(len(tokenizer) - 1)

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        ids, lengths = self.encode(texts)
        ends = np.cumsum(lengths)
        cut = self._joined if self.packing == "none" else self._packed
        ids, lengths = cut(ids, ends)
        return {"input_ids": lists_of(ids.astype(self.dtype), lengths)}

    def _joined(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joined = np.insert(ids, ends, self.sep)
        cuts = np.arange(0, len(joined), self.max_length - 1)
        if not len(cuts):
            return joined, cuts
        lengths = np.diff(np.append(cuts, len(joined))) + 1
        has_target = np.add.reduceat(~np.isin(joined, self.special), cuts, dtype=np.int64) > 0
        return np.insert(joined, cuts, self.cls)[np.repeat(has_target, lengths)], lengths[has_target]

    def _packed(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lines = np.split(ids, ends[:-1]) if len(ends) else []
        pieces = [[self.cls, *part, self.sep] for line in lines for part in _cut(line.tolist(), self.max_length - 2)]
        special = set(self.special)
        windows = _pack([piece for piece in pieces if not special.issuperset(piece)], self.max_length)
        ids = np.array(list(chain.from_iterable(windows)), dtype=np.int64)
        return ids, np.array(list(map(len, windows)), dtype=np.int64)


def _cut(ids: list[int], length: int) -> list[list[int]]:
    return [ids[start : start + length] for start in range(0, len(ids), length)]


def _pack(pieces: list[list[int]], max_length: int) -> list[list[int]]:
    """The pieces in few windows: the longest first, each into the fullest window that has room for it."""
    windows: list[tuple[int, list[int]]] = []  # with the room in them, the least first
    for piece in sorted(pieces, key=len, reverse=True):
        place = bisect_left(windows, len(piece), key=itemgetter(0))
        room, window = windows.pop(place) if place < len(windows) else (max_length, [])
        insort(windows, (room - len(piece), window + piece), key=itemgetter(0))
    return [window for _, window in windows]


class WordWindows:
    """Texts become lines joined with [SEP] and cut into `[CLS] … ` of `max_words` words: `input_ids`, the pieces, and
    `labels`, one output word a word of the input, none for [CLS]."""

    def __init__(self, tokenizer, target_tokenizer, max_words: int):
        self.key = digest("words", key_of(tokenizer), key_of(target_tokenizer), max_words)
        self.encode, self.encode_targets = LineEncoder(tokenizer), LineEncoder(target_tokenizer)
        self.cls, self.sep, self.target_sep = (
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
            target_tokenizer.sep_token_id,
        )
        self.max_words = max_words

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        pieces, lengths = self.encode(texts)
        pieces = np.insert(pieces, np.cumsum(lengths), self.sep)
        labels, lengths = self.encode_targets(texts)
        labels = np.insert(labels, np.cumsum(lengths), self.target_sep)
        starts = np.flatnonzero(pieces < FIRST_CONTINUATION_ID)
        assert len(starts) == len(labels), "both tokenizers split text into the same words"
        cuts = np.arange(0, len(labels), self.max_words - 1)
        return {
            "input_ids": _windows(pieces, starts[cuts], self.cls, np.uint16),
            "labels": _windows(labels, cuts, -100, np.int32),
        }


def _windows(ids: np.ndarray, cuts: np.ndarray, first: int, dtype):
    """What is from each of the cuts on, with `first` before it."""
    return lists_of(np.insert(ids, cuts, first).astype(dtype), np.diff(np.append(cuts, len(ids))) + 1)
