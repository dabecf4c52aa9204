"""Blocks, the parts of files that processes read side by side, and faults, the places that cannot be read.

Each file is scanned once: for a hash of its content, for the columns of a table, and for the places between rows where
it can be cut into blocks. `toolkit.corpora.formats` does that.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from toolkit.data.files import CHUNK, open_file, stamp_of

ROWS_A_BATCH, BYTES_A_BATCH = 1000, 4 << 20  # maximum
BYTES_A_BLOCK = 16 << 20  # approximate
BYTES_A_LINE = 16 << 20  # longer lines are not text
ROWS_LOOKED_AT = 100  # to tell the types of the columns of a table


class Fault(NamedTuple):
    """A place that cannot be read; the offset is in bytes after decompression."""

    file: str
    offset: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}, at byte {self.offset:,}"


Note = Callable[[Fault], Any]  # called with each fault; raises an exception if reading is to stop
Texts = Sequence[str | None]  # of consecutive rows, None for a row that cannot be read


class Block(NamedTuple):
    """Consecutive rows of a file: `num_rows` of those from `start` to `stop`, after the first `skip`.

    The bounds are bytes after decompression, or row groups of a Parquet file. `first_row` is the number in the file of
    the row at `start`, counted from 0. `format` is a key of the table of formats.
    """

    file: str
    format: str
    start: int
    stop: int
    first_row: int
    num_rows: int
    skip: int = 0

    def part(self, first: int, num_rows: int) -> "Block":
        """At most `num_rows` rows of the block, from its row `first` on."""
        return self._replace(skip=self.skip + first, num_rows=min(num_rows, self.num_rows - first))

    def divided(self, num_rows: int) -> "list[Block]":
        """Parts of `num_rows` rows each; the last may have fewer."""
        return [self.part(first, num_rows) for first in range(0, self.num_rows, num_rows)]


class Scan(NamedTuple):
    """The result of scanning a file: a hash of its content, its blocks and faults, and the types of its columns."""

    content: str
    blocks: list[Block]
    faults: list[Fault]
    columns: dict[str, str] = {}


def column_types(columns: dict[str, list]) -> dict[str, str]:
    """The type of each column by its first values: text, numbers (also written as text), or another type's name."""
    return {name: _type_of([value for value in values if value is not None]) for name, values in columns.items()}


def _type_of(values: list) -> str:
    if values and not any(isinstance(value, str) for value in values):
        return type(values[0]).__name__
    try:
        return "numbers" if list(map(float, values)) else "text"
    except (TypeError, ValueError, OverflowError):
        return "text"


def content_hash(chunks: Iterable[bytes]) -> str:
    """A hash of bytes that does not depend on how they are divided into chunks."""
    import xxhash

    content = xxhash.xxh3_128()
    for chunk in chunks:
        content.update(chunk)
    return content.hexdigest()


# A compressed file can only be read from its beginning. Each process leaves the last one open where it stopped, so
# that it decompresses a file only once if it reads its blocks in order.
_left_open: dict[tuple | None, IO[bytes]] = {}


def chunks_of(file: str, start: int = 0, stop: int = sys.maxsize) -> Iterator[bytes]:
    """Read the bytes from `start` to before `stop`, or to the end of the file."""
    key = (os.getpid(), stamp_of(file)) if file.endswith(".gz") else None
    opened = _left_open.pop(key, None)
    if opened is None or opened.tell() > start:
        opened = open_file(file)
    try:
        opened.seek(start)
        while chunk := opened.read(min(CHUNK, max(0, stop - opened.tell()))):
            yield chunk
    except GeneratorExit:  # the reader needs no more
        pass
    except BaseException:
        opened.close()
        raise
    if key is None:
        opened.close()
    else:
        _left_open.clear()
        _left_open[key] = opened
