"""Lines of text in UTF-8."""

import codecs
import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise

import numpy as np

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, chunks_of
from toolkit.data.files import describe_bad_utf8
from toolkit.errors import first_line


def scan(file: str, format: str = ".txt", can_cut: bool = True) -> Scan:
    """Find the blocks of a file of lines, without lines that are too long.

    If a block can end after any line (`can_cut`), blocks have about `BYTES_A_BLOCK`.
    """
    import xxhash

    content, faults = xxhash.xxh3_128(), []
    cuts = [(0, 0)]  # the byte and the number of the row where each block starts, or a line that is left out
    position = line_start = row = 0  # of what was read, and of the next line

    def add_lines(ends: np.ndarray) -> None:
        """Add lines by the positions after their line feeds."""
        nonlocal line_start, row
        # Only the first can be longer than a chunk.
        if len(ends) and (size := int(ends[0]) - 1 - line_start) > blocks.BYTES_A_LINE:
            what = f"line {row + 1:,} has {size:,} bytes, longer than {blocks.BYTES_A_LINE:,}, which is no text"
            faults.append(Fault(file, line_start, what))
            cuts.extend([(line_start, row), (int(ends[0]), row + 1)])
            line_start, row, ends = int(ends[0]), row + 1, ends[1:]
        while len(ends):
            cut = _find_cut(ends - cuts[-1][0], row - cuts[-1][1]) if can_cut else None
            num_lines = len(ends) if cut is None else cut + 1
            line_start, row, ends = int(ends[num_lines - 1]), row + num_lines, ends[num_lines:]
            if cut is not None:
                cuts.append((line_start, row))

    for chunk in _with_line_feeds(chunks_of(file)):
        content.update(chunk)
        add_lines(np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + position + 1)
        position += len(chunk)
    if position > line_start:  # the last line has no line feed
        add_lines(np.array([position + 1]))
    if position == 0:
        faults.append(Fault(file, 0, "the file is empty"))
    left_out = {fault.offset for fault in faults}
    found = [
        Block(file, format, start, stop, first_row, next_row - first_row)
        for (start, first_row), (stop, next_row) in pairwise([*cuts, (line_start, row)])
        if next_row > first_row and start not in left_out
    ]
    return Scan(content.hexdigest(), found, faults)


def _find_cut(ends, num_rows: int) -> int | None:
    """The index of the line after which a block ends, or None: after a whole batch once it is large enough, or when it
    is twice that. `ends` are in bytes from the start of the block, which has `num_rows` lines before these."""
    large = int(np.searchsorted(ends, blocks.BYTES_A_BLOCK))
    whole = large + -(num_rows + large + 1) % blocks.ROWS_A_BATCH
    if whole < len(ends) and ends[whole] <= 2 * blocks.BYTES_A_BLOCK:
        return whole
    twice = int(np.searchsorted(ends, 2 * blocks.BYTES_A_BLOCK))
    return twice if twice < len(ends) else None


def _with_line_feeds(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same number of bytes, with line feeds in place of carriage returns that end lines alone, as of old Macs."""
    held_back = b""
    for chunk in chunks:
        chunk, held_back = held_back + chunk, b""
        if chunk.endswith(b"\r"):  # a line feed may follow
            chunk, held_back = chunk[:-1], b"\r"
        if chunk.count(b"\r") > chunk.count(b"\r\n"):
            chunk = re.sub(rb"\r(?!\n)", b"\n", chunk)
        if chunk:
            yield chunk
    if held_back:
        yield b"\n"


def raw_lines(file: str, start: int = 0, stop: int = sys.maxsize) -> Iterator[list[bytes]]:
    """Read the lines between two offsets, without their line feeds: those that end in a chunk together."""
    rest = b""
    for chunk in _with_line_feeds(chunks_of(file, start, stop)):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    """Read the texts of a block in batches."""
    return read_parsed(block, decode, note)


def read_parsed(block: Block, parse: Callable[[list[bytes]], list], note: Note) -> Iterator[list]:
    """Parse the lines of a block in batches. `parse` raises `ValueError` for lines that it cannot parse."""
    lines = chain.from_iterable(raw_lines(block.file, block.start, block.stop))
    offset = block.start + sum(len(line) + 1 for line in islice(lines, block.skip))
    row = block.first_row + block.skip
    end = row + block.num_rows
    waiting: list[bytes] = []
    while batch := waiting + list(islice(lines, min(blocks.ROWS_A_BATCH, end - row) - len(waiting))):
        size, waiting = sum(map(len, batch)) + len(batch), []
        while size > blocks.BYTES_A_BATCH and len(batch) > 1:
            size -= len(batch[-1]) + 1
            waiting.insert(0, batch.pop())
        found, errors = parse_all(without_mark(batch, offset), parse)
        for number, error in errors.items():
            place = offset + sum(len(line) + 1 for line in batch[:number])
            note(Fault(block.file, place, f"line {row + number + 1:,} {error}"))
        yield found
        offset, row = offset + size, row + len(batch)


def parse_all(rows: list, parse: Callable[[list], list]) -> tuple[list, dict[int, str]]:
    """Parse all rows together or, if that raises `ValueError`, one by one: None for bad ones, and their errors."""
    with contextlib.suppress(ValueError):
        return parse(rows), {}
    found, errors = [], {}
    for number, row in enumerate(rows):
        try:
            found += parse([row])
        except ValueError as error:
            found.append(None)
            errors[number] = first_line(error)
    return found, errors


def without_mark(lines: list[bytes], offset: int) -> list[bytes]:
    """The lines without the byte-order mark that Windows puts at the beginning of a file."""
    return lines if offset else [lines[0].removeprefix(codecs.BOM_UTF8), *lines[1:]]


def decode(lines: list[bytes]) -> list[str]:
    """Decode lines in UTF-8 and remove the carriage returns of Windows. Raises `ValueError` for the first bad one."""
    joined = b"\n".join(lines)
    if b"\0" in joined:
        raise ValueError("has NUL bytes: this is binary, or text in another encoding than UTF-8")
    try:
        text = joined.decode()
    except UnicodeDecodeError as error:
        raise ValueError(describe_bad_utf8(error)) from None
    found = text.split("\n")
    return [line.removesuffix("\r") for line in found] if "\r" in text else found
