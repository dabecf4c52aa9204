"""Parts of files, which processes read side by side, and what is said of what cannot be read.

A file is looked through once: for its content, by which what is made of it is found again, for the columns of a
table, and for where it can be cut between rows. `toolkit.corpora.formats` does that.
"""

import contextlib
import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

ROWS_A_BATCH, BYTES_A_BATCH = 1000, 4 << 20  # at most
BYTES_A_BLOCK = 16 << 20  # about
BYTES_A_LINE = 16 << 20  # a longer one is no text
CHUNK = 8 << 20
ROWS_LOOKED_AT = 100  # to know the columns of a table
HUB = "hf://"
READ_ERRORS = (OSError, EOFError, ValueError, NotImplementedError, zlib.error)  # the fourth is of Arrow


class Fault(NamedTuple):
    """What cannot be read."""

    file: str
    offset: int  # in bytes; of a compressed file, once decompressed
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}, at byte {self.offset:,}"


Note = Callable[[Fault], Any]  # is told of what cannot be read, and raises where reading is to end
Texts = Sequence[str | None]  # of rows that follow each other, None where one cannot be read


@dataclass(frozen=True)
class Block:
    """Rows of a file that follow each other: `num_rows` of those between two places, after the first `skip`."""

    file: str
    format: str
    start: int  # in bytes, once decompressed; of parquet, row groups
    stop: int
    first_row: int  # of the file, at `start`
    num_rows: int
    skip: int = 0


class Scan(NamedTuple):
    """What looking through a file has found."""

    content: str  # the same for the same content
    blocks: list[Block]
    faults: list[Fault]
    columns: dict[str, str] = {}  # of a table, and what the first rows hold in each


def kinds_of(columns: dict[str, list]) -> dict[str, str]:
    """What there is in each column: text, numbers, which may be written as text, or the name of another type."""
    return {name: _kind_of([value for value in values if value is not None]) for name, values in columns.items()}


def _kind_of(values: list) -> str:
    if values and not any(isinstance(value, str) for value in values):
        return type(values[0]).__name__
    return "numbers" if values and all(map(_is_number, values)) else "text"


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def content_of(chunks: Iterable[bytes]) -> str:
    """The same for the same bytes, however they are cut."""
    import xxhash

    content = xxhash.xxh3_128()
    for chunk in chunks:
        content.update(chunk)
    return content.hexdigest()


def stamp_of(file: str) -> tuple[str | int, ...]:
    """What changes when a file does; the name of a file of a Hub has its commit. Raises `OSError`."""
    if file.startswith(HUB):
        return (file,)
    found = os.stat(file)
    return os.path.abspath(file), found.st_size, found.st_mtime_ns


def is_damage(error: Exception) -> bool:
    """Whether the bytes of a file are at fault, and not the network, the disk or want of memory, which may pass."""
    if type(error) is OSError:
        return error.errno is None  # Arrow's
    is_of_system = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
    return isinstance(error, READ_ERRORS) and not is_of_system


def open_file(file: str) -> IO[bytes]:
    """A file of this machine or of a Hub, decompressed where it ends in `.gz`."""
    if file.startswith(HUB):
        from huggingface_hub import HfFileSystem

        opened = HfFileSystem().open(file.removeprefix(HUB), "rb", block_size=CHUNK)
    else:
        opened = open(file, "rb")  # noqa: SIM115
    return gzip.GzipFile(fileobj=opened) if file.endswith(".gz") else opened  # type: ignore[return-value]


def chunks_of(file: str, start: int = 0, stop: int = sys.maxsize) -> Iterator[bytes]:
    """The bytes from `start` to before `stop`, or to the end of the file."""
    with _opened_at(file, start) as opened:
        left = stop - start
        while left > 0 and (chunk := opened.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


# A compressed file can only be read from its beginning on. Each process leaves the last one open where it stopped, so
# that it decompresses a file once, whichever of its blocks it reads, as long as they come in order.
_left_open: dict[tuple, IO[bytes]] = {}


@contextlib.contextmanager
def _opened_at(file: str, start: int) -> Iterator[IO[bytes]]:
    if not file.endswith(".gz"):
        with open_file(file) as opened:
            opened.seek(start)
            yield opened
        return
    process_and_file = (os.getpid(), stamp_of(file))
    left_open = _left_open.pop(process_and_file, None)
    opened = open_file(file) if left_open is None or left_open.tell() > start else left_open
    try:
        opened.seek(start)
        yield opened
    except GeneratorExit:  # who reads has enough
        pass
    except BaseException:
        opened.close()
        raise
    _left_open.clear()
    _left_open[process_and_file] = opened
