"""Rows of a corpus that repeat earlier ones, exactly or nearly, found in bounded memory: signatures are on disk.

Two texts are near duplicates by the Jaccard similarity of their five-word shingles, estimated by MinHash (Broder 1997,
https://doi.org/10.1109/SEQUEN.1997.666900). Only texts that agree in one of the bands of their hashes are compared
(Rajaraman & Ullman 2011, http://infolab.stanford.edu/~ullman/mmds/ch3n.pdf). `datasketch` computes the hashes; its
index, `MinHashLSH`, would hold all texts in memory.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.corpora.arguments import Deduplicate, Unit
from toolkit.corpora.blocks import BYTES_A_LINE, Texts
from toolkit.corpora.cleaning import Notes
from toolkit.corpora.workers import map_in_order

SHINGLE = 5  # words
# Texts of similarity 0.8 agree in a band with probability 0.95, texts of similarity 0.5 with 0.06.
NUM_HASHES, HASHES_A_BAND = 128, 8
UNITS_HASHED, UNITS_COMPARED, PAIRS_COMPARED = 1_000, 4_000_000, 10_000  # at a time


class _Unit(NamedTuple):
    """What is compared: a line, or the lines of a document."""

    first_row: int
    last_row: int
    text: str


class _Row(NamedTuple):
    number: int
    text: str | None
    in_block: bool  # or in a later block of the same file


@dataclass(frozen=True)
class DuplicateSearch:
    """Find lines or documents that are equal to, or nearly like, an earlier one.

    A document is a row of a table, or the lines of text up to an empty one.

    Args:
        alike: Whether to look for exact or near duplicates.
        unit: What to compare.
        similarity: Jaccard similarity from which two texts are near duplicates.
    """

    alike: Deduplicate
    unit: Unit = "line"
    similarity: float = 0.8

    def __call__(
        self,
        corpus,
        folder: Path,
        num_proc: int | None = None,
        on_block: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        """Write the numbers of the rows that repeat earlier ones to the folder, for `rows_that_repeat`.

        Args:
            corpus: The corpus.
            folder: A folder, empty or left by a search that was interrupted.
            num_proc: Number of processes, by default one per core.
            on_block: Called with the number of blocks that are done and the number of all.
        """
        num_blocks = len(corpus.blocks)
        sign = partial(self._sign, corpus, folder)
        for done, _ in enumerate(map_in_order(sign, range(num_blocks), num_proc), start=1):
            on_block(done, num_blocks)
        starts = np.cumsum([0, *(len(_load(folder, number, "units")) for number in range(num_blocks))])
        repeats = self._repeats(folder, starts)
        for file, numbers in groupby(range(num_blocks), lambda number: corpus.blocks[number].file):
            rows = []
            for number in numbers:
                units = _load(folder, number, "units")[repeats[starts[number] : starts[number + 1]]]
                rows.append(_ranges(*units.T))
            np.save(_rows_file(folder, file), np.concatenate(rows))
        for intermediate in folder.glob("[0-9]*.*"):
            intermediate.unlink()

    def _sign(self, corpus, folder: Path, number: int) -> None:
        """Write the rows, keys and MinHashes of the units of one block to the folder."""
        if (folder / f"{number}.units.npy").is_file():
            return
        rows, keys = [np.empty((0, 2), np.int64)], [np.empty((0, self._num_bands), np.uint64)]
        all_units = self._units(corpus, number)
        with open(folder / f"{number}.hashes.partial", "wb") as file:  # half a kilobyte per unit
            while units := list(islice(all_units, UNITS_HASHED)):
                rows.append(np.array([(unit.first_row, unit.last_row) for unit in units], dtype=np.int64))
                if self.alike == "exact":
                    parts = [[unit.text.strip().encode()] for unit in units]
                else:
                    hashes = _min_hashes([unit.text for unit in units])
                    file.write(hashes.tobytes())
                    bands = hashes.reshape(len(units), self._num_bands, HASHES_A_BAND)
                    parts = [[band.tobytes() for band in of_unit] for of_unit in bands]
                keys.append(np.array([list(map(_key, of_unit)) for of_unit in parts], dtype=np.uint64))
        os.replace(file.name, folder / f"{number}.hashes.bin")
        _save(folder, number, "keys", np.concatenate(keys).T)
        _save(folder, number, "units", np.concatenate(rows))

    @property
    def _num_bands(self) -> int:
        return 1 if self.alike == "exact" else NUM_HASHES // HASHES_A_BAND

    def _units(self, corpus, number: int) -> Iterator[_Unit]:
        """The units of a block: its lines or rows, or the documents that begin in it."""
        if self.unit == "document" and corpus.column is None:
            yield from _documents(corpus, number)
            return
        for row, texts in corpus.read_rows(corpus.blocks[number], Notes()):
            yield from (_Unit(row + i, row + i, text) for i, text in enumerate(texts) if text and text.strip())

    def _repeats(self, folder: Path, starts: np.ndarray) -> np.ndarray:
        """Whether each unit repeats an earlier one, (units,); those of block i begin at `starts[i]`."""
        found = np.zeros(starts[-1], dtype=bool)
        num_parts = np.uint64(1 + starts[-1] // UNITS_COMPARED)
        for band in range(self._num_bands):
            for part in range(int(num_parts)):
                units, unit_keys = [], []
                for number, start in enumerate(starts[:-1]):
                    keys = _load(folder, number, "keys")[band]
                    of_part = np.flatnonzero(keys % num_parts == part)
                    units.append(start + of_part)
                    unit_keys.append(keys[of_part])
                first, later = _pairs(np.concatenate(units), np.concatenate(unit_keys))
                for place in range(0, len(first), PAIRS_COMPARED):
                    some = slice(place, place + PAIRS_COMPARED)
                    found[later[some][self._are_alike(folder, starts, first[some], later[some])]] = True
        return found

    def _are_alike(self, folder: Path, starts: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether the units of each pair, which have a key in common, are alike."""
        if self.alike == "exact":
            return np.ones(len(first), dtype=bool)

        def hashes_of(units: np.ndarray) -> np.ndarray:
            blocks = np.searchsorted(starts, units, side="right") - 1
            hashes = np.empty((len(units), NUM_HASHES), dtype=np.uint32)
            for block in np.unique(blocks):  # one file open at a time
                of_block = np.memmap(folder / f"{block}.hashes.bin", np.uint32, "r").reshape(-1, NUM_HASHES)
                hashes[blocks == block] = of_block[units[blocks == block] - starts[block]]
            return hashes

        return (hashes_of(first) == hashes_of(second)).mean(axis=1) >= self.similarity


def rows_that_repeat(folder: Path, file: str) -> np.ndarray:
    """The numbers of the rows of a file that repeat earlier ones, in ascending order."""
    return np.load(_rows_file(folder, file), mmap_mode="r")


def without_rows(texts: Texts, row: int, rows: np.ndarray, notes: Notes) -> Texts:
    """The texts, the first of which is row `row`, with None for those whose numbers are in `rows`."""
    first, last = np.searchsorted(rows, (row, row + len(texts)))
    if first == last:
        return texts
    kept = list(texts)
    for repeated in rows[first:last]:
        kept[repeated - row] = None
    notes.counts["left out, like an earlier one"] += int(last - first)
    return kept


def _documents(corpus, number: int) -> Iterator[_Unit]:
    """The documents of a block: a document belongs to the block that has the empty line before it.

    Those of more than `BYTES_A_LINE` are skipped.
    """
    is_own = _begins_file(corpus, number)
    for is_empty, rows in groupby(
        _rows_from(corpus, number), lambda row: row.text is not None and not row.text.strip()
    ):
        if is_empty:
            is_own = deque(rows, maxlen=1)[0].in_block
            if not is_own:
                return
            continue
        lines: list[str] = []
        size = first_row = last_row = 0
        for row in rows:
            if not (is_own or row.in_block):
                return
            if not lines:
                first_row = row.number
            if row.text and is_own and size < BYTES_A_LINE:
                lines.append(row.text)
            size += len(row.text or "")
            last_row = row.number
        if lines and size < BYTES_A_LINE:
            yield _Unit(first_row, last_row, "\n".join(lines))


def _rows_from(corpus, number: int) -> Iterator[_Row]:
    """The rows of a block and, after them, of the rest of its file."""
    last = number
    while last == number or (last < len(corpus.blocks) and not _begins_file(corpus, last)):
        for first_row, texts in corpus.read_rows(corpus.blocks[last], Notes()):
            yield from (_Row(first_row + i, text, last == number) for i, text in enumerate(texts))
        last += 1


def _begins_file(corpus, number: int) -> bool:
    return number == 0 or corpus.blocks[number - 1].file != corpus.blocks[number].file


def _ranges(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """All numbers from each of `first` to the corresponding one of `last`."""
    lengths = last - first + 1
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(first - starts, lengths)


def _pairs(units: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair the first of the units that have a key in common with each of the others."""
    order = np.argsort(keys, kind="stable")
    units, keys = units[order], keys[order]
    is_first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0)) if len(keys) else order
    return units[first][~is_first], units[~is_first]


def _min_hashes(texts: list[str]) -> np.ndarray:
    """The MinHashes of the shingles of texts, (texts, `NUM_HASHES`)."""
    import xxhash
    from datasketch import MinHash

    words = [text.lower().split() for text in texts]
    shingles = (
        {" ".join(of_text[i : i + SHINGLE]).encode() for i in range(max(1, len(of_text) - SHINGLE + 1))}
        for of_text in words
    )
    found = MinHash.generator(map(list, shingles), num_perm=NUM_HASHES, hashfunc=xxhash.xxh32_intdigest)
    return np.array([minhash.hashvalues for minhash in found], dtype=np.uint32)


def _key(content: bytes) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(content)


def _save(folder: Path, number: int, what: str, array: np.ndarray) -> None:
    partial_file = folder / f"{number}.{what}.partial.npy"
    np.save(partial_file, np.ascontiguousarray(array))  # one band is read at a time
    os.replace(partial_file, folder / f"{number}.{what}.npy")


def _load(folder: Path, number: int, what: str) -> np.ndarray:
    return np.load(folder / f"{number}.{what}.npy", mmap_mode="r")


def _rows_file(folder: Path, file: str) -> Path:
    return folder / f"rows-{hashlib.sha256(file.encode()).hexdigest()[:32]}.npy"
