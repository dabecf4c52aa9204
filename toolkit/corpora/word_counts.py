"""How often the words of a corpus occur, in bounded memory.

While the distinct words fit, counts are exact. Beyond that the rarest are dropped whenever there are too many, as in
lossy counting (Manku & Motwani 2002, https://www.vldb.org/conf/2002/S10P03.pdf): a frequent word is never dropped, and
a count is too low by no more than the counts of dropped words.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from toolkit.corpora.blocks import Block
from toolkit.corpora.cleaning import Notes
from toolkit.corpora.corpus import Corpus
from toolkit.corpora.workers import OnDone, map_in_order

KEPT_SHARE = 0.6  # fraction of the words that fit which is kept when the rarest are dropped
LETTERS_A_WORD = 32  # average length of the words for which memory is reserved
NUM_REGISTERS = 1 << 16  # of HyperLogLog++: 64 KiB, a standard error of 0.4%
Space = Callable[[list[str]], list[str]]  # from texts to their words, separated by spaces


@dataclass
class WordCounts:
    """Counts of at most `max_words` words, fewer if they are long, in the order in which they first occur.

    `num_words` counts every occurrence of a word, and `letters` holds all letters that follow another one within a
    word; both include dropped words. `notes` says what was left out of the corpus.
    """

    max_words: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    num_words: int = 0
    letters: set[str] = field(default_factory=set)
    notes: Notes = field(default_factory=Notes)
    _registers: np.ndarray = field(default_factory=lambda: np.zeros(NUM_REGISTERS, dtype=np.int8))  # of dropped words
    _num_letters: int = 0  # upper bound: a word that was added again is counted again

    def add(self, counts: Counter[str]) -> None:
        """Add counts, then drop the rarest words if there are too many."""
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
    def num_dropped(self) -> int:
        """About how many distinct words were dropped."""
        return num_distinct(self._registers)

    @property
    def dropped_share(self) -> float:
        """Fraction of the words of the text that `counts` lacks."""
        return 1 - self.counts.total() / max(1, self.num_words)

    def left_out(self) -> list[str]:
        """The messages for the user about faults and dropped words."""
        lines = self.notes.lines()
        if self.num_dropped:
            lines.append(
                f"dropped about {self.num_dropped:,} rare words, {self.dropped_share:.2%} of the text, which do not "
                f"fit beside {len(self.counts):,} others; more fit with more --memory_gb"
            )
        return lines

    def _drop_rarest(self, max_words: int) -> None:
        """Keep at most `KEPT_SHARE` of what fits, and no word that is as rare as a dropped one."""
        values = np.fromiter(self.counts.values(), dtype=np.int64, count=len(self.counts))
        lengths = np.fromiter(map(len, self.counts), dtype=np.int64, count=len(self.counts))
        order = np.argsort(-values, kind="stable")
        ends = np.cumsum(lengths[order])
        num_that_fit = int(np.searchsorted(ends, KEPT_SHARE * max_words * LETTERS_A_WORD, side="right"))
        threshold = values[order[min(int(KEPT_SHARE * max_words), num_that_fit)]]
        add_distinct(self._registers, (word for word, count in self.counts.items() if count <= threshold))
        self.counts = Counter({word: count for word, count in self.counts.items() if count > threshold})
        self._num_letters = int(lengths[values > threshold].sum())


def add_distinct(registers: np.ndarray, words: Iterable[str]) -> None:
    """Add words to the registers of HyperLogLog++, many at once, which `datasketch` does one by one."""
    import xxhash

    hashes = np.fromiter((xxhash.xxh3_64_intdigest(word.encode()) for word in words), dtype=np.uint64)
    rest = (hashes // np.uint64(NUM_REGISTERS)).astype(np.float64)  # 48 bits, so the float is exact
    leading_zeros = 48 - np.frexp(rest)[1]
    np.maximum.at(registers, hashes % np.uint64(NUM_REGISTERS), (leading_zeros + 1).astype(np.int8))


def num_distinct(registers: np.ndarray) -> int:
    """Estimate the number of distinct words that were added, within one percent."""
    if not registers.any():
        return 0
    from datasketch import HyperLogLogPlusPlus

    return round(HyperLogLogPlusPlus(reg=registers).count())


def count_words(
    corpus: Corpus,
    space: Space,
    max_words: int | None = None,
    num_proc: int | None = None,
    on_block: OnDone | None = None,
) -> WordCounts:
    """Count the words of a corpus in one pass; `space` puts spaces between the words of texts.

    The counts do not depend on the number of processes, by default one per core.
    """
    found = WordCounts(max_words, notes=Notes(list(corpus.faults)))
    counting = map_in_order(partial(_count, corpus, space), corpus.blocks, num_proc, on_block)
    for packed, letters, notes in counting:
        found.add(packed.unpacked())
        found.letters |= letters
        found.notes.add(notes.faults, notes.counts)
    return found


def count_words_of(batches: Iterable[list[str]], space: Space) -> WordCounts:
    """Count the words of batches of texts exactly, in this process."""
    counts: Counter[str] = Counter()
    for texts in batches:
        for line in space(texts):
            counts.update(line.split())
    return WordCounts(counts=counts, num_words=counts.total(), letters=set("".join([word[1:] for word in counts])))


class PackedCounts:
    """Counts as a process returns them: much smaller than a dictionary, so that several can wait."""

    def __init__(self, counts: Counter[str]):
        self.words = " ".join(counts).encode()
        self.values = np.fromiter(counts.values(), dtype=np.int64, count=len(counts))

    def unpacked(self) -> Counter[str]:
        words = self.words.decode().split(" ") if self.words else []
        return Counter(dict(zip(words, self.values.tolist(), strict=True)))


def _count(corpus: Corpus, space: Space, block: Block) -> tuple[PackedCounts, set[str], Notes]:
    notes = Notes()
    found = count_words_of(corpus.read(block, notes), space)
    return PackedCounts(found.counts), found.letters, notes
