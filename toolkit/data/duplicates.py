"""Rows of a corpus that repeat earlier ones, exactly or nearly, found in bounded memory.

Nearly alike are texts whose sets of five words in a row are, by their Jaccard similarity: MinHash of Broder (1997),
https://doi.org/10.1109/SEQUEN.1997.666900, by `datasketch`, in bands of which one has to agree, as in Rajaraman &
Ullman (2011), http://infolab.stanford.edu/~ullman/mmds/ch3n.pdf. What is known of each text lies on disk.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.data.arguments import Alike, Unit
from toolkit.data.blocks import BYTES_A_LINE, Block, Texts
from toolkit.data.cleaning import Notes
from toolkit.data.workers import map_in_order
from toolkit.errors import extra

SHINGLE = 5  # words
NUM_HASHES, ROWS_OF_BAND = 128, 8  # texts of similarity 0.8 agree in a band with probability 0.95, of 0.5 with 0.06
UNITS_TOGETHER = 4_000_000  # compared at a time


class _Unit(NamedTuple):
    first_row: int
    last_row: int
    text: str


@dataclass(frozen=True)
class DuplicateSearch:
    """How to look: for lines or documents that are alike exactly or, to at least `similarity`, nearly.

    A document is a row of a table, or of text the lines up to an empty one.
    """

    alike: Alike
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
        units = [_load(folder, number, "units") for number in numbers]
        repeats = np.split(self._repeats(folder, units), np.cumsum([len(of_block) for of_block in units])[:-1])
        of_files: dict[str, list[np.ndarray]] = {}
        for block, of_block, repeat in zip(corpus.blocks, units, repeats, strict=True):
            of_files.setdefault(block.file, []).append(_all_between(*of_block[repeat].T))
        for file, rows in of_files.items():
            np.save(_file_of(folder, file), np.concatenate(rows))
        for number in numbers:
            for what in ("units", "keys", "hashes"):
                (folder / f"{number}.{what}.npy").unlink(missing_ok=True)

    def _look_at(self, corpus, folder: Path, number: int) -> None:
        """Leave in the folder, of each unit of a block, its rows, what it is compared by, and its hashes."""
        if (folder / f"{number}.units.npy").is_file():
            return
        rows, keys, hashes = [], [], []
        for unit in self._units(corpus, number):
            rows.append((unit.first_row, unit.last_row))
            if self.alike == "exact":
                keys.append([_hash(unit.text.strip().encode())])
            else:
                hashes.append(_min_hashes(unit.text))
                bands = hashes[-1].reshape(-1, ROWS_OF_BAND)
                keys.append([_hash(band.tobytes()) for band in bands])
        if self.alike == "near":
            _save(folder, number, "hashes", np.array(hashes, dtype=np.uint32).reshape(len(rows), NUM_HASHES))
        _save(folder, number, "keys", np.array(keys, dtype=np.uint64).reshape(len(rows), -1 if rows else 1))
        _save(folder, number, "units", np.array(rows, dtype=np.int64).reshape(len(rows), 2))

    def _units(self, corpus, number: int) -> Iterator[_Unit]:
        if self.unit == "line" or corpus.column is not None:
            for row, texts in corpus.read_rows(corpus.blocks[number], Notes()):
                yield from (_Unit(row + i, row + i, text) for i, text in enumerate(texts) if text and text.strip())
            return
        lines: list[str] = []
        before, first, size = corpus.blocks[:number], 0, 0
        is_mine = all(block.file != corpus.blocks[number].file for block in before)  # else it begins in one of them
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

    def _repeats(self, folder: Path, units: Sequence[np.ndarray]) -> np.ndarray:
        """(units,): whether an earlier one is alike."""
        keys = [_load(folder, number, "keys") for number in range(len(units))]
        starts = np.cumsum([0, *map(len, keys)])
        found = np.zeros(starts[-1], dtype=bool)
        num_parts = np.uint64(1 + starts[-1] // UNITS_TOGETHER)
        for band in range(max(of_block.shape[1] for of_block in keys)):
            for part in range(int(num_parts)):
                chosen, of_chosen = [], []
                for start, of_block in zip(starts, keys, strict=False):
                    if len(of_block):
                        here = np.flatnonzero(of_block[:, band] % num_parts == part)
                        chosen.append(start + here)
                        of_chosen.append(of_block[here, band])
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
                of_block = np.load(folder / f"{block}.hashes.npy", mmap_mode="r")
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
    block: Block = corpus.blocks[number]
    for other in corpus.blocks[number:]:
        if other.file != block.file:
            return
        for row, texts in corpus.read_rows(other, Notes()):
            yield from ((row + i, text, other is block) for i, text in enumerate(texts))


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
    np.save(aside, array)
    os.replace(aside, folder / f"{number}.{what}.npy")


def _load(folder: Path, number: int, what: str) -> np.ndarray:
    return np.load(folder / f"{number}.{what}.npy")


def _file_of(folder: Path, file: str) -> Path:
    return folder / f"rows-{hashlib.sha256(file.encode()).hexdigest()[:32]}.npy"
