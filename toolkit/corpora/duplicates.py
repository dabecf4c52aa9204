"""Rows of a corpus that repeat earlier ones, exactly or nearly, found in bounded memory.

Nearly alike are texts whose sets of five words in a row are, by their Jaccard similarity: MinHash of Broder (1997),
https://doi.org/10.1109/SEQUEN.1997.666900, by `datasketch`, in bands of which one has to agree, as in Rajaraman &
Ullman (2011), http://infolab.stanford.edu/~ullman/mmds/ch3n.pdf. What is known of each text lies on disk.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.corpora.arguments import Deduplicate, Unit
from toolkit.corpora.blocks import BYTES_A_LINE, Texts
from toolkit.corpora.cleaning import Notes
from toolkit.corpora.workers import map_in_order
from toolkit.errors import extra

SHINGLE = 5  # words
NUM_HASHES, ROWS_OF_BAND = 128, 8  # texts of similarity 0.8 agree in a band with probability 0.95, of 0.5 with 0.06
UNITS_HASHED, UNITS_COMPARED = 1_000, 4_000_000  # at a time


class _Unit(NamedTuple):
    first_row: int
    last_row: int
    text: str


@dataclass(frozen=True)
class DuplicateSearch:
    """How to look: for lines or documents that are alike exactly or, to at least `similarity`, nearly.

    A document is a row of a table, or of text the lines up to an empty one.
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
        """Leave in the folder, for `rows_that_repeat`, which rows repeat earlier ones of the corpus."""
        numbers = range(len(corpus.blocks))
        for done, _ in enumerate(map_in_order(partial(self._look_at, corpus, folder), numbers, num_proc), start=1):
            on_block(done, len(numbers))
        starts = np.cumsum([0, *(len(_load(folder, number, "units")) for number in numbers)])
        repeats = self._repeats(folder, starts)
        rows: list[np.ndarray] = []
        for number in numbers:
            units = _load(folder, number, "units")
            rows.append(_all_between(*units[repeats[starts[number] : starts[number + 1]]].T))
            if number + 1 == len(numbers) or _begins_a_file(corpus, number + 1):
                np.save(_file_of(folder, corpus.blocks[number].file), np.concatenate(rows))
                rows.clear()
        for number in numbers:
            for what in ("units.npy", "keys.npy", "hashes.bin"):
                (folder / f"{number}.{what}").unlink(missing_ok=True)

    def _look_at(self, corpus, folder: Path, number: int) -> None:
        """Leave in the folder, of each unit of a block, its rows, what it is compared by, and its hashes."""
        if (folder / f"{number}.units.npy").is_file():
            return
        rows, keys, all_units = [np.empty((0, 2), np.int64)], [self._keys([])], self._units(corpus, number)
        with open(folder / f"{number}.hashes.partial", "wb") as hashes:  # half a kilobyte a unit
            while units := list(islice(all_units, UNITS_HASHED)):
                rows.append(np.array([(unit.first_row, unit.last_row) for unit in units], dtype=np.int64))
                if self.alike == "exact":
                    keys.append(self._keys([[_hash(unit.text.strip().encode())] for unit in units]))
                    continue
                of_units = np.array([_min_hashes(unit.text) for unit in units], dtype=np.uint32)
                hashes.write(of_units.tobytes())
                bands = of_units.reshape(len(units), -1, ROWS_OF_BAND)
                keys.append(self._keys([[_hash(band.tobytes()) for band in of_unit] for of_unit in bands]))
        os.replace(hashes.name, folder / f"{number}.hashes.bin")
        _save(folder, number, "keys", np.concatenate(keys, axis=1))
        _save(folder, number, "units", np.concatenate(rows))

    @property
    def _num_bands(self) -> int:
        return 1 if self.alike == "exact" else NUM_HASHES // ROWS_OF_BAND

    def _keys(self, of_units: list[list[int]]) -> np.ndarray:
        """(bands, units): units that agree in a band have one key there."""
        return np.array(of_units, dtype=np.uint64).reshape(len(of_units), self._num_bands).T

    def _units(self, corpus, number: int) -> Iterator[_Unit]:
        if self.unit == "line" or corpus.column is not None:
            for row, texts in corpus.read_rows(corpus.blocks[number], Notes()):
                yield from (_Unit(row + i, row + i, text) for i, text in enumerate(texts) if text and text.strip())
            return
        lines: list[str] = []
        first, size = 0, 0
        is_mine = _begins_a_file(corpus, number)  # else the first one begins in an earlier block
        for row, text, is_of_block in _lines_from(corpus, number):
            if not is_of_block and not is_mine:
                return
            if text is None or text.strip():
                first = first if lines else row
                lines += [text] if text and is_mine and size < BYTES_A_LINE else []
                size += len(text or "")
                last = row
            else:
                if lines and is_mine and size < BYTES_A_LINE:
                    yield _Unit(first, last, "\n".join(lines))
                lines, is_mine, size = [], True, 0
                if not is_of_block:
                    return
        if lines and is_mine and size < BYTES_A_LINE:
            yield _Unit(first, last, "\n".join(lines))

    def _repeats(self, folder: Path, starts: np.ndarray) -> np.ndarray:
        """(units,): whether an earlier one is alike. Those of a block begin at its place in `starts`."""
        found = np.zeros(starts[-1], dtype=bool)
        num_parts = np.uint64(1 + starts[-1] // UNITS_COMPARED)
        for band in range(self._num_bands):
            for part in range(int(num_parts)):
                chosen, of_chosen = [], []
                for number, start in enumerate(starts[:-1]):
                    keys = _load(folder, number, "keys")[band]
                    here = np.flatnonzero(keys % num_parts == part)
                    chosen.append(start + here)
                    of_chosen.append(keys[here])
                earlier, later = _pairs(np.concatenate(chosen), np.concatenate(of_chosen))
                if self.alike == "near":
                    is_alike = self._are_alike(folder, starts, earlier, later)
                    later = later[is_alike]
                found[later] = True
        return found

    def _are_alike(self, folder: Path, starts: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        def of(units: np.ndarray) -> np.ndarray:
            blocks = np.searchsorted(starts, units, side="right") - 1
            hashes = np.empty((len(units), NUM_HASHES), dtype=np.uint32)
            for block in np.unique(blocks):  # one file open at a time
                of_block = np.memmap(folder / f"{block}.hashes.bin", np.uint32, "r").reshape(-1, NUM_HASHES)
                hashes[blocks == block] = of_block[units[blocks == block] - starts[block]]
            return hashes

        alike = [np.empty(0, dtype=bool)]
        for start in range(0, len(first), 10_000):
            some = slice(start, start + 10_000)
            alike.append((of(first[some]) == of(second[some])).mean(axis=1) >= self.similarity)
        return np.concatenate(alike)


def rows_that_repeat(folder: Path, file: str) -> np.ndarray:
    """The numbers of the rows of a file that repeat earlier ones, in ascending order."""
    return np.load(_file_of(folder, file), mmap_mode="r")


def without_rows(texts: Texts, row: int, rows: np.ndarray, notes: Notes) -> Texts:
    """The texts of rows from `row` on, None for those of `rows`."""
    first, last = np.searchsorted(rows, (row, row + len(texts)))
    if first == last:
        return texts
    kept = list(texts)
    for repeated in rows[first:last]:
        kept[repeated - row] = None
    notes.counts["left out, like an earlier one"] += int(last - first)
    return kept


def _lines_from(corpus, number: int) -> Iterator[tuple[int, str | None, bool]]:
    """The lines of a block and, after them, of the rest of its file: number, text, and whether it is of the block."""
    last = number
    while last == number or (last < len(corpus.blocks) and not _begins_a_file(corpus, last)):
        for row, texts in corpus.read_rows(corpus.blocks[last], Notes()):
            yield from ((row + i, text, last == number) for i, text in enumerate(texts))
        last += 1


def _begins_a_file(corpus, number: int) -> bool:
    return number == 0 or corpus.blocks[number - 1].file != corpus.blocks[number].file


def _all_between(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """All numbers from each of the first to the last that belongs to it."""
    lengths = last - first + 1
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(first - starts, lengths)


def _pairs(units: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of units with equal keys the first, with each of the others."""
    order = np.argsort(keys, kind="stable")
    units, keys = units[order], keys[order]
    begins = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0)) if len(keys) else order
    return units[first][~begins], units[~begins]


def _min_hashes(text: str) -> np.ndarray:
    words = text.lower().split()
    shingles = {" ".join(words[i : i + SHINGLE]).encode() for i in range(max(1, len(words) - SHINGLE + 1))}
    minhash = _no_hashes().copy()
    minhash.update_batch(list(shingles))
    return minhash.hashvalues


@cache
def _no_hashes():
    import xxhash

    with extra("clean"):
        from datasketch import MinHash
    return MinHash(NUM_HASHES, hashfunc=xxhash.xxh32_intdigest)


def _hash(content: bytes) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(content)


def _save(folder: Path, number: int, what: str, array: np.ndarray) -> None:
    aside = folder / f"{number}.{what}.partial.npy"
    np.save(aside, np.ascontiguousarray(array))  # a band is read at a time
    os.replace(aside, folder / f"{number}.{what}.npy")


def _load(folder: Path, number: int, what: str) -> np.ndarray:
    return np.load(folder / f"{number}.{what}.npy", mmap_mode="r")


def _file_of(folder: Path, file: str) -> Path:
    return folder / f"rows-{hashlib.sha256(file.encode()).hexdigest()[:32]}.npy"
