"""Recipes that cut a corpus into windows for language models. They import no torch, so that processes stay small."""

from bisect import bisect_left, insort
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from toolkit.corpora.arguments import Packing
from toolkit.corpora.encoding import LineEncoder, key_of
from toolkit.corpora.tokenization import FIRST_CONTINUATION_ID
from toolkit.data.cache import digest


class PieceWindows:
    """Make windows of at most `max_length` tokens, `input_ids`. Windows without a possible target are left out.

    Without packing, lines are joined with [SEP] and cut into `[CLS] … `. With packing, a window holds whole lines,
    each as `[CLS] … [SEP]`; a line that is longer than a window is cut first.
    """

    def __init__(self, tokenizer, max_length: int, packing: Packing = "none"):
        self.key = digest("pieces", key_of(tokenizer), tokenizer.all_special_ids, max_length, packing)
        self.encode, self.max_length, self.packing = LineEncoder(tokenizer), max_length, packing
        self.cls, self.sep, self.special = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.all_special_ids
        self.dtype = np.min_scalar_type(len(tokenizer) - 1)

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        ids, lengths = self.encode(texts)
        make_windows = self._joined if self.packing == "none" else self._packed
        ids, lengths = make_windows(ids, np.cumsum(lengths))
        return {"input_ids": list_array(ids.astype(self.dtype), lengths)}

    def _joined(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joined = np.insert(ids, ends, self.sep)
        cuts = np.arange(0, len(joined), self.max_length - 1)
        lengths = np.diff(np.append(cuts, len(joined))) + 1
        has_target = np.add.reduceat(~np.isin(joined, self.special), cuts, dtype=np.int64) > 0
        return np.insert(joined, cuts, self.cls)[np.repeat(has_target, lengths)], lengths[has_target]

    def _packed(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size, special = self.max_length - 2, set(self.special)
        lines = [line.tolist() for line in np.split(ids, ends[:-1])]
        parts = (line[start : start + size] for line in lines for start in range(0, len(line), size))
        rows = [[self.cls, *part, self.sep] for part in parts if not special.issuperset(part)]
        windows = _pack(rows, self.max_length)
        ids = np.array(list(chain.from_iterable(windows)), dtype=np.int64)
        return ids, np.array(list(map(len, windows)), dtype=np.int64)


def _pack(lines: list[list[int]], max_length: int) -> list[list[int]]:
    """Pack lines into few windows by best fit: the longest first, each into the fullest window that has room."""
    windows: list[tuple[int, list[int]]] = []  # with the room in each, in ascending order
    for line in sorted(lines, key=len, reverse=True):
        place = bisect_left(windows, len(line), key=itemgetter(0))
        room, window = windows.pop(place) if place < len(windows) else (max_length, [])
        insort(windows, (room - len(line), window + line), key=itemgetter(0))
    return [window for _, window in windows]


class WordWindows:
    """Make windows `[CLS] … ` of `max_words` words from lines joined with [SEP].

    `input_ids` are the pieces of the words, and `labels` has one output word per word, -100 for [CLS].
    """

    def __init__(self, tokenizer, target_tokenizer, max_words: int):
        self.key = digest("words", key_of(tokenizer), key_of(target_tokenizer), max_words)
        self.encode, self.encode_targets = LineEncoder(tokenizer), LineEncoder(target_tokenizer)
        self.cls, self.sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.target_sep, self.max_words = target_tokenizer.sep_token_id, max_words

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
    """Cut ids into windows, each of which starts with `first`."""
    return list_array(np.insert(ids, cuts, first).astype(dtype), np.diff(np.append(cuts, len(ids))) + 1)


def list_array(values, lengths):
    """An Arrow column of lists from their concatenated values and the length of each."""
    import pyarrow

    return pyarrow.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), values)
