"""Find rows of a corpus that repeat earlier ones, exactly or nearly, in bounded memory: what is compared is on disk.

Two texts are near duplicates by the Jaccard similarity of their five-word shingles, estimated by MinHash (Broder 1997,
https://doi.org/10.1109/SEQUEN.1997.666900). Only texts that agree in one of the bands of their hashes are compared
(Rajaraman & Ullman 2011, http://infolab.stanford.edu/~ullman/mmds/ch3n.pdf). `datasketch` computes the hashes; its
index, `MinHashLSH`, would hold all texts in memory.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.corpora.arguments import Deduplicate, Unit
from toolkit.corpora.blocks import BYTES_A_LINE, Block, Texts
from toolkit.corpora.cleaning import Notes
from toolkit.corpora.prepared import INDEX, open_prepared, prepare
from toolkit.corpora.workers import OnDone

SHINGLE = 5  # words
# Texts of similarity 0.8 agree in a band with probability 0.95, texts of similarity 0.5 with 0.06.
NUM_HASHES, HASHES_A_BAND = 128, 8
UNITS_A_BATCH, UNITS_COMPARED, PAIRS_COMPARED = 1_000, 4_000_000, 10_000  # at a time
_PLACE = ("file", "first_row", "last_row")
_Unit = tuple[int, int, int, str]  # a line or document: the number of its file, its first and last row, its text


@dataclass(frozen=True)
class DuplicateSearch:
    """Find lines or documents that are equal to, or nearly like, an earlier one.

    A document is a row of a table, or the lines of text up to an empty one. Near duplicates have at least a Jaccard
    similarity of `similarity`.
    """

    alike: Deduplicate
    unit: Unit = "line"
    similarity: float = 0.8

    @property
    def key(self) -> str:
        return self.alike

    def __call__(self, units: list[_Unit], /) -> dict[str, Any]:
        """Compute what units are compared by: a key for each band, and MinHashes. `prepare` calls this."""
        import pyarrow
        import xxhash

        *places, texts = zip(*units, strict=True)
        columns: dict[str, Any] = dict(zip(_PLACE, map(np.array, places), strict=True))
        if self.alike == "exact":
            bands = [[text.strip().encode()] for text in texts]
        else:
            hashes = _min_hashes(texts)
            columns["hashes"] = pyarrow.array(list(map(bytes, hashes)), pyarrow.binary(hashes[0].nbytes))
            bands = [list(map(bytes, of_unit.reshape(-1, HASHES_A_BAND))) for of_unit in hashes]
        keys = np.array([list(map(xxhash.xxh3_64_intdigest, of_unit)) for of_unit in bands], dtype=np.uint64)
        return columns | {f"band {number}": np.ascontiguousarray(of_band) for number, of_band in enumerate(keys.T)}

    def find(self, corpus, folder: Path, num_proc: int | None = None, on_block: OnDone | None = None) -> None:
        """Write the numbers of the rows that repeat earlier ones to a folder, for `rows_that_repeat`.

        The folder is empty or was left by a search that was interrupted.
        """
        import pyarrow

        signatures = folder / "signatures"
        compared = _Units(corpus, self.unit)
        prepare(compared, self, signatures, num_proc, on_block=on_block)
        units = open_prepared(signatures)
        file_numbers, first, last = 3 * [np.empty(0, dtype=np.int64)]
        if len(units):
            is_repeat = pyarrow.array(self._repeats(units))
            file_numbers, first, last = (units.data.column(name).filter(is_repeat).to_numpy() for name in _PLACE)
        for file, number in compared.file_numbers.items():
            start, stop = np.searchsorted(file_numbers, (number, number + 1))
            np.save(_rows_file(folder, file), _ranges(first[start:stop], last[start:stop]))
        del units
        (signatures / INDEX).unlink()  # first, for a search that is interrupted here to begin again
        shutil.rmtree(signatures)

    def _repeats(self, units) -> np.ndarray:
        """Whether each unit repeats an earlier one, (units,)."""
        found = np.zeros(len(units), dtype=bool)
        num_parts = 1 + len(units) // UNITS_COMPARED
        bands = [name for name in units.column_names if name.startswith("band")]
        for band, part in product(bands, range(num_parts)):
            some_units, some_keys, start = [], [], 0
            for chunk in units.data.column(band).chunks:
                keys = chunk.to_numpy()
                of_part = np.flatnonzero(keys % np.uint64(num_parts) == part)
                some_units.append(start + of_part)
                some_keys.append(keys[of_part])
                start += len(keys)
            numbers = np.concatenate(some_units)
            _, first, key_of_unit = np.unique(np.concatenate(some_keys), return_index=True, return_inverse=True)
            first = numbers[first[key_of_unit]]  # the first of the units that have the key of each unit
            is_later = first != numbers
            first, later = first[is_later], numbers[is_later]
            if self.alike == "near":
                later = later[self._are_near(units.select_columns(["hashes"]), first, later)]
            found[later] = True
        return found

    def _are_near(self, rows, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether the estimated similarity of the units of each pair is high enough."""
        are_near = np.zeros(len(first), dtype=bool)
        for start in range(0, len(first), PAIRS_COMPARED):
            some = slice(start, start + PAIRS_COMPARED)
            hashes = [np.frombuffer(b"".join(rows[units[some]]["hashes"]), np.uint32) for units in (first, second)]
            equal = (hashes[0] == hashes[1]).reshape(-1, NUM_HASHES)
            are_near[some] = equal.mean(axis=1) >= self.similarity
        return are_near


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


class _Units:
    """Batches of units in the blocks of a corpus, which `prepare` reads as it reads a corpus."""

    def __init__(self, corpus, unit: Unit):
        self.corpus, self.blocks, self.faults, self.key = corpus, corpus.blocks, corpus.faults, corpus.key
        self.has_documents = unit == "document" and corpus.column is None
        self.file_numbers = {
            file: number for number, file in enumerate(dict.fromkeys(block.file for block in corpus.blocks))
        }

    def read(self, block: Block, notes: Notes) -> Iterator[list[_Unit]]:
        units = self._documents(block) if self.has_documents else self._lines(block)
        yield from iter(lambda: list(islice(units, UNITS_A_BATCH)), [])

    def _lines(self, block: Block) -> Iterator[_Unit]:
        file = self.file_numbers[block.file]
        for _, row, text in self._rows([block]):
            if text and text.strip():
                yield file, row, row, text

    def _documents(self, block: Block) -> Iterator[_Unit]:
        """The documents whose preceding empty line is in the block, without those longer than `BYTES_A_LINE`."""
        of_file = [other for other in self.blocks if other.file == block.file]
        is_own = block == of_file[0]
        lines: list[str] = []
        size = first_row = last_row = 0
        for of_block, row, text in chain(self._rows(of_file[of_file.index(block) :]), [(None, 0, "")]):
            if text is not None and not text.strip():
                if lines and size < BYTES_A_LINE:
                    yield self.file_numbers[block.file], first_row, last_row, "\n".join(lines)
                if of_block != block:
                    return
                lines, size, is_own = [], 0, True
            elif is_own:
                first_row, last_row = first_row if lines else row, row
                if text and size < BYTES_A_LINE:
                    lines.append(text)
                size += len(text or "")
            elif of_block != block:
                return

    def _rows(self, blocks: list[Block]) -> Iterator[tuple[Block, int, str | None]]:
        for block in blocks:
            for first_row, texts in self.corpus.read_rows(block, Notes()):
                yield from ((block, row, text) for row, text in enumerate(texts, start=first_row))


def _ranges(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """All numbers from each of `first` to the corresponding one of `last`."""
    lengths = last - first + 1
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(first - starts, lengths)


def _min_hashes(texts: Sequence[str]) -> np.ndarray:
    """The MinHashes of the shingles of texts, (texts, `NUM_HASHES`)."""
    import xxhash
    from datasketch import MinHash

    def shingles(text: str) -> list[bytes]:
        words = text.lower().split()
        return list({" ".join(words[i : i + SHINGLE]).encode() for i in range(max(1, len(words) - SHINGLE + 1))})

    found = MinHash.generator(map(shingles, texts), num_perm=NUM_HASHES, hashfunc=xxhash.xxh32_intdigest)
    return np.array([minhash.hashvalues for minhash in found], dtype=np.uint32)


def _rows_file(folder: Path, file: str) -> Path:
    return folder / f"rows-{hashlib.sha256(file.encode()).hexdigest()[:32]}.npy"
