"""Lines of text in UTF-8."""

import codecs
from collections.abc import Callable, Iterator
from itertools import accumulate, chain

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, chunks_of
from toolkit.errors import first_line

FORMAT = "text"


def look_through(file: str, format: str = FORMAT, can_cut: bool = True) -> Scan:
    """Find where blocks of lines begin and end, without those that are too long; where `can_cut` says so, of about
    `BYTES_A_BLOCK` each."""
    import numpy as np
    import xxhash

    content, found, faults = xxhash.xxh3_128(), [], []
    position = start = line_start = 0  # of the chunk, the block, the line
    row = first_row = 0

    def close(stop: int, next_start: int, next_row: int) -> None:
        nonlocal start, first_row
        if row > first_row:
            found.append(Block(file, format, start, stop, first_row, row - first_row))
        start, first_row = next_start, next_row

    def too_long(stop: int) -> None:
        nonlocal row
        size, most = stop - line_start, blocks.BYTES_A_LINE
        what = f"line {row + 1:,} has {size:,} bytes, longer than {most:,}, which is no text"
        faults.append(Fault(file, line_start, what))
        close(line_start, stop + 1, row + 1)
        row += 1

    for chunk in chunks_of(file):
        content.update(chunk)
        ends = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + position
        position += len(chunk)
        if len(ends) and ends[0] - line_start > blocks.BYTES_A_LINE:  # longer than a chunk: only the first can be
            too_long(int(ends[0]))
            line_start, ends = int(ends[0]) + 1, ends[1:]
        while len(ends):
            cut = _cut(ends - start, row - first_row) if can_cut else None
            taken = len(ends) if cut is None else cut + 1
            row, line_start, ends = row + taken, int(ends[taken - 1]) + 1, ends[taken:]
            if cut is not None:
                close(line_start, line_start, row)
    if position - line_start > blocks.BYTES_A_LINE:
        too_long(position)
    elif position > line_start:
        row += 1
    close(position, position, row)
    if position == 0:
        faults.append(Fault(file, 0, "the file is empty"))
    return Scan(content.hexdigest(), found, faults)


def _cut(ends, num_rows: int) -> int | None:
    """After which of the lines a block ends, by where they end in it, and `num_rows` before them; None: after none.

    It ends with a whole batch once it is large enough, or when it is twice that.
    """
    import numpy as np

    large = int(np.searchsorted(ends, blocks.BYTES_A_BLOCK - 1))
    whole = large + -(num_rows + large + 1) % blocks.ROWS_A_BATCH
    if whole < len(ends) and ends[whole] < 2 * blocks.BYTES_A_BLOCK:
        return whole
    twice = int(np.searchsorted(ends, 2 * blocks.BYTES_A_BLOCK - 1))
    return twice if twice < len(ends) else None


def batches(block: Block) -> Iterator[tuple[int, int, list[bytes]]]:
    """Where each batch begins, at which byte and row, and its lines."""
    offset, row, skip, left = block.start, block.first_row, block.skip, block.num_rows
    rest, lines, taken = b"", [], 0  # type: ignore[var-annotated]
    ended = chain(chunks_of(block.file, block.start, block.stop), [None])
    while left > 0:
        chunk = next(ended)
        parts = (rest + (chunk or b"")).split(b"\n")
        rest = parts.pop()
        if chunk is None and rest:
            parts, rest = [*parts, rest], b""
        if skip and parts:
            dropped = parts[:skip]
            skip, row, parts = skip - len(dropped), row + len(dropped), parts[len(dropped) :]
            offset += sum(map(len, dropped)) + len(dropped)
        lines, taken = lines[taken:] + parts, 0
        size = sum(map(len, lines)) + len(lines)
        while left and (num_lines := len(lines) - taken):
            most = min(blocks.ROWS_A_BATCH, left)
            if chunk is not None and num_lines < most and size <= blocks.BYTES_A_BATCH:
                break
            batch = lines[taken : taken + most]
            sizes = list(accumulate(len(line) + 1 for line in batch))
            if sizes[-1] > blocks.BYTES_A_BATCH:
                batch = batch[: max(1, sum(size <= blocks.BYTES_A_BATCH for size in sizes))]
            yield offset, row, batch
            taken, left, row = taken + len(batch), left - len(batch), row + len(batch)
            offset, size = offset + sizes[len(batch) - 1], size - sizes[len(batch) - 1]
        if chunk is None:
            return


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    return read_lines(block, decoded, note)


def read_lines(block: Block, parse: Callable[[list[bytes]], list], note: Note) -> Iterator[list]:
    """What `parse` makes of each batch of lines; it raises `ValueError` where it can make nothing of one."""
    for offset, row, lines in batches(block):

        def bad(number: int, error: ValueError, row=row, offset=offset, lines=lines) -> None:
            place = offset + sum(len(line) + 1 for line in lines[:number])
            note(Fault(block.file, place, f"line {row + number + 1:,} {first_line(error)}"))

        yield parsed(without_mark(lines, offset), parse, bad)


def parsed(lines: list, parse: Callable[[list], list], bad: Callable[[int, ValueError], None]) -> list:
    """`parse` of all lines together, or, where it raises `ValueError`, of one after the other: None for bad ones, of
    which `bad` is told."""
    try:
        return parse(lines)
    except ValueError:
        found = []
        for number, line in enumerate(lines):
            try:
                found += parse([line])
            except ValueError as error:
                bad(number, error)
                found.append(None)
        return found


def without_mark(lines: list[bytes], offset: int) -> list[bytes]:
    """Without the mark that Windows puts at the beginning of a file."""
    return lines if offset else [lines[0].removeprefix(codecs.BOM_UTF8), *lines[1:]]


def decoded(lines: list[bytes]) -> list[str]:
    """Lines in UTF-8 without what Windows puts at their ends. Raises `ValueError` for the first bad one."""
    joined = b"\n".join(lines)
    if b"\0" in joined:
        raise ValueError("has NUL bytes: this is binary, or text in another encoding than UTF-8")
    try:
        text = joined.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"is not UTF-8 (byte 0x{joined[error.start]:02x} at column {error.start + 1}); convert it, for example: "
            "iconv -f LATIN1 -t UTF-8"
        ) from None
    found = text.split("\n")
    return [line.removesuffix("\r") for line in found] if "\r" in text else found
