"""Lines of text in UTF-8."""

import codecs
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, chunks_of
from toolkit.data.files import describe_bad_utf8
from toolkit.errors import first_line

FORMAT = "text"


def scan(file: str, format: str = FORMAT, can_cut: bool = True) -> Scan:
    """Find the blocks of a file of lines, without lines that are too long.

    If a block can end after any line (`can_cut`), blocks have about `BYTES_A_BLOCK`.
    """
    import numpy as np
    import xxhash

    content, found, faults = xxhash.xxh3_128(), [], []
    position = start = line_start = 0  # bytes: read so far, where the block starts, where the line starts
    row = first_row = 0  # of the line, of the block

    def close(stop: int, next_start: int, next_row: int) -> None:
        nonlocal start, first_row
        if row > first_row:
            found.append(Block(file, format, start, stop, first_row, row - first_row))
        start, first_row = next_start, next_row

    def leave_out(stop: int) -> None:
        nonlocal row
        what = (
            f"line {row + 1:,} has {stop - line_start:,} bytes, longer than {blocks.BYTES_A_LINE:,}, which is no text"
        )
        faults.append(Fault(file, line_start, what))
        close(line_start, stop + 1, row + 1)
        row += 1

    for chunk in chunks_of(file):
        content.update(chunk)
        ends = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + position
        position += len(chunk)
        if len(ends) and ends[0] - line_start > blocks.BYTES_A_LINE:  # only the first line can be longer than a chunk
            leave_out(int(ends[0]))
            line_start, ends = int(ends[0]) + 1, ends[1:]
        while len(ends):
            cut = _find_cut(ends - start, row - first_row) if can_cut else None
            num_lines = len(ends) if cut is None else cut + 1
            row, line_start, ends = row + num_lines, int(ends[num_lines - 1]) + 1, ends[num_lines:]
            if cut is not None:
                close(line_start, line_start, row)
    if position - line_start > blocks.BYTES_A_LINE:
        leave_out(position)
    elif position > line_start:
        row += 1
    close(position, position, row)
    if position == 0:
        faults.append(Fault(file, 0, "the file is empty"))
    return Scan(content.hexdigest(), found, faults)


def _find_cut(ends, num_rows: int) -> int | None:
    """The index of the line after which a block ends, or None: after a whole batch once it is large enough, or when it
    is twice that. `ends` are in bytes from the start of the block, which has `num_rows` lines before these."""
    import numpy as np

    large = int(np.searchsorted(ends, blocks.BYTES_A_BLOCK - 1))
    whole = large + -(num_rows + large + 1) % blocks.ROWS_A_BATCH
    if whole < len(ends) and ends[whole] < 2 * blocks.BYTES_A_BLOCK:
        return whole
    twice = int(np.searchsorted(ends, 2 * blocks.BYTES_A_BLOCK - 1))
    return twice if twice < len(ends) else None


def raw_lines(file: str, start: int = 0, stop: int = sys.maxsize) -> Iterator[list[bytes]]:
    """Read the lines between two offsets, without their line feeds: those that end in a chunk together."""
    rest = b""
    for chunk in chunks_of(file, start, stop):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def batches(block: Block) -> Iterator[tuple[int, int, list[bytes]]]:
    """Read the lines of a block in batches, each with its offset in bytes and the number of its first row."""
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
        yield offset, row, batch
        offset, row = offset + size, row + len(batch)


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    """Read the texts of a block in batches."""
    return read_parsed(block, decode, note)


def read_parsed(block: Block, parse: Callable[[list[bytes]], list], note: Note) -> Iterator[list]:
    """Parse the lines of a block in batches. `parse` raises `ValueError` for lines that it cannot parse."""
    for offset, row, lines in batches(block):

        def report(number: int, error: ValueError, row=row, offset=offset, lines=lines) -> None:
            place = offset + sum(len(line) + 1 for line in lines[:number])
            note(Fault(block.file, place, f"line {row + number + 1:,} {first_line(error)}"))

        yield parse_all(without_mark(lines, offset), parse, report)


def parse_all(rows: list, parse: Callable[[list], list], report: Callable[[int, ValueError], None]) -> list:
    """Parse all rows together or, if that raises `ValueError`, one by one: None for bad ones, which are reported."""
    try:
        return parse(rows)
    except ValueError:
        found = []
        for number, row in enumerate(rows):
            try:
                found += parse([row])
            except ValueError as error:
                report(number, error)
                found.append(None)
        return found


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
