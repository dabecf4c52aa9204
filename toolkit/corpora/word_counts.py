"""How often the words of a corpus occur, in bounded memory.

While the distinct words fit, counts are exact. Beyond that the rarest are dropped whenever there are too many, as
lossy counting does, Manku & Motwani (2002), https://www.vldb.org/conf/2002/S10P03.pdf: a frequent word is never among
them, and its count is too low by no more than the dropped words' counts.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from toolkit.corpora.blocks import Block
from toolkit.corpora.cleaning import Notes
from toolkit.corpora.corpus import Corpus
from toolkit.corpora.workers import map_in_order

KEPT_SHARE = 0.6  # of what fits, where the rarest are dropped
LETTERS_A_WORD = 32  # on average, that there is room for
Space = Callable[[list[str]], list[str]]  # from texts to the words of each, spaces between them


@dataclass
class WordCounts:
    """Counts of at most `max_words` words, fewer where they are long, in the order in which they first occur.

    `num_words` is how many words were counted, each time that they occur; `letters` are all that follow another one
    within a word, also of dropped words. `notes` are of what was left out of the corpus.
    """

    max_words: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    num_words: int = 0
    letters: set[str] = field(default_factory=set)
    notes: Notes = field(default_factory=Notes)
    dropped: "DistinctCount" = field(default_factory=lambda: DistinctCount())
    _num_letters: int = 0  # at most; a word that was added again is in it again

    def add(self, counts: Counter[str]) -> None:
        self.num_words += counts.total()
        self.counts.update(counts)
        if self.max_words is None:
            return
        self._num_letters += sum(map(len, counts))
        if self._num_letters > self.max_words * LETTERS_A_WORD:
            self._num_letters = sum(map(len, self.counts))
        if len(self.counts) > self.max_words or self._num_letters > self.max_words * LETTERS_A_WORD:
            self._drop_rarest(self.max_words)

    @property
    def dropped_share(self) -> float:
        """Of all words, each time that they occur, those that `counts` does not have."""
        return 1 - self.counts.total() / max(1, self.num_words)

    def left_out(self) -> list[str]:
        """What to say of faults and of words that did not fit."""
        lines = self.notes.lines()
        if num_dropped := int(self.dropped):
            lines.append(
                f"dropped about {num_dropped:,} rare words, {self.dropped_share:.2%} of the text, which do not fit "
                f"beside {len(self.counts):,} others; more fit with more --memory_gb"
            )
        return lines

    def _drop_rarest(self, max_words: int) -> None:
        """Leave at most `KEPT_SHARE` of what fits, without any word that is as rare as one that is dropped."""
        values = np.fromiter(self.counts.values(), dtype=np.int64, count=len(self.counts))
        lengths = np.fromiter(map(len, self.counts), dtype=np.int64, count=len(self.counts))
        order = np.argsort(-values, kind="stable")
        ends = np.cumsum(lengths[order])
        that_fit = int(np.searchsorted(ends, KEPT_SHARE * max_words * LETTERS_A_WORD, side="right"))
        threshold = values[order[min(int(KEPT_SHARE * max_words), that_fit)]]
        self.dropped.add(word for word, count in self.counts.items() if count <= threshold)
        self.counts = Counter({word: count for word, count in self.counts.items() if count > threshold})
        self._num_letters = int(lengths[values > threshold].sum())


class DistinctCount:
    """About how many different strings there were, within half a percent, in 64 KiB: HyperLogLog, Flajolet, Fusy,
    Gandouet & Meunier (2007), https://algo.inria.fr/flajolet/Publications/FlFuGaMe07.pdf."""

    BITS = 16

    def __init__(self):
        self.ranks = np.zeros(1 << self.BITS, dtype=np.uint8)

    def add(self, words: Iterable[str]) -> None:
        import xxhash

        hashes = np.fromiter((xxhash.xxh3_64_intdigest(word.encode()) for word in words), dtype=np.uint64)
        rest = (hashes << np.uint64(self.BITS)) | np.uint64(1 << (self.BITS - 1))  # at most so many zeros in front
        ranks = 64 - np.frexp(rest.astype(np.float64))[1] + 1
        np.maximum.at(self.ranks, hashes >> np.uint64(64 - self.BITS), ranks.astype(np.uint8))

    def __int__(self) -> int:
        num_registers = len(self.ranks)
        empty = int((self.ranks == 0).sum())
        mean = num_registers / np.ldexp(1.0, -self.ranks.astype(int)).sum()
        estimate = 0.7213 / (1 + 1.079 / num_registers) * num_registers * mean
        if empty and estimate <= 2.5 * num_registers:
            estimate = num_registers * np.log(num_registers / empty)
        return round(estimate)


def count_words(
    corpus: Corpus,
    space: Space,
    max_words: int | None = None,
    num_proc: int | None = None,
    on_block: Callable[[int, int], None] = lambda done, of: None,
) -> WordCounts:
    """Count in one pass, by so many processes (default: one a core); the same counts however many they are.

    `space` puts spaces between the words of texts. `on_block` is told how many blocks of the corpus are done.
    """
    found = WordCounts(max_words, notes=Notes(list(corpus.faults)))
    counting = map_in_order(partial(_count, corpus, space), corpus.blocks, num_proc)
    for done, (packed, letters, notes) in enumerate(counting, start=1):
        found.add(packed.unpacked())
        found.letters |= letters
        found.notes.add(notes.faults, notes.counts)
        on_block(done, len(corpus.blocks))
    return found


def count_words_of(batches: Iterable[list[str]], space: Space) -> WordCounts:
    """The same of batches of texts, exactly and here."""
    counts: Counter[str] = Counter()
    for texts in batches:
        for line in space(texts):
            counts.update(line.split())
    return WordCounts(counts=counts, num_words=counts.total(), letters=_continuing_letters(counts))


class PackedCounts:
    """Counts on their way from a process: many times smaller than a dictionary, of which several may wait."""

    def __init__(self, counts: Counter[str]):
        self.words = " ".join(counts).encode()
        self.values = np.fromiter(counts.values(), dtype=np.int64, count=len(counts))

    def unpacked(self) -> Counter[str]:
        words = self.words.decode().split(" ") if self.words else []
        return Counter(dict(zip(words, self.values.tolist(), strict=True)))


def _continuing_letters(words: Iterable[str]) -> set[str]:
    """All that follow another one within a word."""
    return set("".join([word[1:] for word in words]))


def _count(corpus: Corpus, space: Space, block: Block) -> tuple[PackedCounts, set[str], Notes]:
    notes = Notes()
    found = count_words_of(corpus.read(block, notes), space)
    return PackedCounts(found.counts), found.letters, notes
