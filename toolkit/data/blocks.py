"""Files of text in blocks that processes read side by side, in batches, with no file held in memory.

A row is a line of a text file, or of a table the text in one of its columns. A file is looked through once: for its
content, by which what is made of it is found again, for the ends of its lines, and for lines that are too long to be
text. Nothing else has to be known to cut it.
"""

import codecs
import contextlib
import csv
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from toolkit.data.source import suffix_of
from toolkit.errors import RunFailed, first_line

ROWS_A_BATCH, BYTES_A_BATCH = 1000, 4 << 20  # at most
BYTES_A_BLOCK = 16 << 20  # about
BYTES_A_LINE = 16 << 20  # a longer one is no text
CHUNK = 8 << 20
ROWS_LOOKED_AT = 100  # to know the columns of a table
HUB = "hf://"
NO_OBJECT = 'is no JSON object with a text, like {"text": "…"}'


class Fault(NamedTuple):
    """What cannot be read."""

    file: str
    offset: int  # in bytes; of a compressed file, once decompressed
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}, at byte {self.offset:,}"


def left_out(faults: list[Fault], named: int = 10) -> list[str]:
    """What to say of what was left out: the first ones by name, then how many more."""
    lines = [f"left out {fault}" for fault in faults[:named]]
    return [*lines, f"left out {len(faults) - named:,} more"] if len(faults) > named else lines


Note = Callable[[Fault], Any]  # is told of what cannot be read, and raises where reading is to end


@dataclass(frozen=True)
class Block:
    """Rows of a file that follow each other: `num_rows` of those between two places, after the first `skip`."""

    file: str
    start: int  # bytes of lines, row groups of parquet
    stop: int
    first_row: int  # of the file, at `start`
    num_rows: int
    skip: int = 0


class Scan(NamedTuple):
    """What looking through a file has found."""

    content: str  # the same for the same content
    blocks: list[Block]
    faults: list[Fault]


def look_through(file: str) -> Scan:
    """Read a file once. What of it cannot be read is a fault, and in no block."""
    try:
        if _kind(file) == ".parquet":
            return _look_through_parquet(file)
        if _kind(file) == ".csv":
            return _look_through_csv(file)
        scan = _look_through_lines(file)
        if _is_array(file):
            return scan._replace(blocks=[replace(scan.blocks[0], num_rows=len(_array(file)))])
        return scan
    except (*_READ_ERRORS, ValueError) as error:
        return Scan("", [], [Fault(file, 0, f"cannot be read ({first_line(error)})")])


Texts = Sequence[str | None]  # of rows that follow each other, None where one cannot be read


def read_block(block: Block, column: str | None, note: Note) -> Iterator[Texts]:
    """The texts of a block in batches, of a table those in `column`; "" where a row of a table has none."""
    read = {".parquet": _read_parquet, ".csv": _read_csv}.get(_kind(block.file), _read_lines)
    try:
        yield from read(block, column, note)
    except _READ_ERRORS as error:  # of a file that was read whole before: it may pass, so nothing is left out for it
        raise RunFailed(f"{block.file}: cannot be read any more ({first_line(error)}); repeat the command") from None


def first_values(block: Block) -> dict[str, list]:
    """Of each column of a table some values, those of the first rows that can be read."""
    if _kind(block.file) == ".parquet":
        with _parquet(block.file) as table:
            for group in range(block.start, block.stop):
                with contextlib.suppress(OSError, ValueError):
                    if batch := next(table.iter_batches(ROWS_LOOKED_AT, row_groups=[group]), None):
                        return batch.to_pydict()
            return {name: [] for name in table.schema_arrow.names}
    if _kind(block.file) == ".csv":
        rows = list(islice(_rows_of_csv(block, _ignore), ROWS_LOOKED_AT))
        names = _header(block.file)
        return {name: [row[i] for row in rows if i < len(row)] for i, name in enumerate(names)}
    if _is_array(block.file):
        objects = _array(block.file)[:ROWS_LOOKED_AT]
    else:
        parsed = (_parsed(_rows_of_json, block.file, *batch, _ignore) for batch in _batches_of_lines(block))
        objects = next(filter(any, parsed), [])[:ROWS_LOOKED_AT]
    objects = [row for row in objects if row]
    names = list(dict.fromkeys(name for row in objects for name in row))
    return {name: [row[name] for row in objects if name in row] for name in names}


def content_of(chunks: Iterable[bytes]) -> str:
    """The same for the same bytes, however they are cut."""
    import xxhash

    content = xxhash.xxh3_128()
    for chunk in chunks:
        content.update(chunk)
    return content.hexdigest()


# Opening


_READ_ERRORS = (OSError, EOFError, zlib.error)


def _kind(file: str) -> str:
    return suffix_of(Path(file))


def _open(file: str) -> IO[bytes]:
    """A file of this machine or of a Hub, decompressed where it ends in `.gz`."""
    if file.startswith(HUB):
        from huggingface_hub import HfFileSystem

        opened = HfFileSystem().open(file.removeprefix(HUB), "rb", block_size=CHUNK)
    else:
        opened = open(file, "rb")  # noqa: SIM115
    return gzip.GzipFile(fileobj=opened) if file.endswith(".gz") else opened  # type: ignore[return-value]


def _chunks(file: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    with _open(file) as opened:
        if start:
            opened.seek(start)
        left = float("inf") if stop is None else stop - start
        while left > 0 and (chunk := opened.read(int(min(CHUNK, left)))):
            left -= len(chunk)
            yield chunk


# Lines: text and JSON


def _look_through_lines(file: str, can_cut: bool = True) -> Scan:
    import numpy as np
    import xxhash

    content, blocks, faults = xxhash.xxh3_128(), [], []
    can_cut = can_cut and not file.endswith(".gz") and not _is_array(file)
    position = start = line_start = 0  # of the chunk, the block, the line
    row = first_row = 0

    def close(stop: int, next_start: int, next_row: int) -> None:
        nonlocal start, first_row
        if row > first_row:
            blocks.append(Block(file, start, stop, first_row, row - first_row))
        start, first_row = next_start, next_row

    def too_long(stop: int) -> None:
        nonlocal row
        what = f"line {row + 1:,} has {stop - line_start:,} bytes, longer than {BYTES_A_LINE:,}, which is no text"
        faults.append(Fault(file, line_start, what))
        close(line_start, stop + 1, row + 1)
        row += 1

    for chunk in _chunks(file):
        content.update(chunk)
        ends = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + position
        position += len(chunk)
        if len(ends) and ends[0] - line_start > BYTES_A_LINE:  # longer than a chunk, so only the first can be
            too_long(int(ends[0]))
            line_start, ends = int(ends[0]) + 1, ends[1:]
        while len(ends):
            cut = _cut(ends - start, row - first_row) if can_cut else None
            taken = len(ends) if cut is None else cut + 1
            row, line_start, ends = row + taken, int(ends[taken - 1]) + 1, ends[taken:]
            if cut is not None:
                close(line_start, line_start, row)
    if position - line_start > BYTES_A_LINE:
        too_long(position)
    elif position > line_start:
        row += 1
    close(position, position, row)
    if position == 0:
        faults.append(Fault(file, 0, "the file is empty"))
    return Scan(content.hexdigest(), blocks, faults)


def _cut(ends, num_rows: int) -> int | None:
    """After which of the lines a block ends, by where they end in it, and `num_rows` before them; None: after none.

    It ends with a whole batch once it is large enough, or when it is twice that.
    """
    import numpy as np

    large = int(np.searchsorted(ends, BYTES_A_BLOCK - 1))
    whole = large + -(num_rows + large + 1) % ROWS_A_BATCH
    if whole < len(ends) and ends[whole] < 2 * BYTES_A_BLOCK:
        return whole
    twice = int(np.searchsorted(ends, 2 * BYTES_A_BLOCK - 1))
    return twice if twice < len(ends) else None


def _batches_of_lines(block: Block) -> Iterator[tuple[int, int, list[bytes]]]:
    """Where each batch begins, at which byte and row, and its lines."""
    offset, row, skip, left = block.start, block.first_row, block.skip, block.num_rows
    rest, lines, taken = b"", [], 0  # type: ignore[var-annotated]
    ended = chain(_chunks(block.file, block.start, block.stop), [None])
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
            if chunk is not None and num_lines < min(ROWS_A_BATCH, left) and size <= BYTES_A_BATCH:
                break
            batch = lines[taken : taken + min(ROWS_A_BATCH, left)]
            sizes = list(accumulate(len(line) + 1 for line in batch))
            if sizes[-1] > BYTES_A_BATCH:
                batch = batch[: max(1, sum(size <= BYTES_A_BATCH for size in sizes))]
            yield offset, row, batch
            taken, left, row = taken + len(batch), left - len(batch), row + len(batch)
            offset, size = offset + sizes[len(batch) - 1], size - sizes[len(batch) - 1]
        if chunk is None:
            return


def _read_lines(block: Block, column: str | None, note: Note) -> Iterator[Texts]:
    if column is None:
        parse: Callable[[list[bytes]], list] = _decoded
    else:
        if _is_array(block.file):
            rows = _array(block.file)[block.skip : block.skip + block.num_rows]
            yield from (_texts_of(rows[i : i + ROWS_A_BATCH], column) for i in range(0, len(rows), ROWS_A_BATCH))
            return
        parse = partial(_texts_of_json, column=column)
    for offset, row, lines in _batches_of_lines(block):
        yield _parsed(parse, block.file, offset, row, lines, note)


def _parsed(
    parse: Callable[[list[bytes]], list], file: str, offset: int, row: int, lines: list[bytes], note: Note
) -> list:
    """`parse` of all lines together, or, where it raises `ValueError`, of one after the other, None for bad ones."""
    unmarked = lines if offset else [lines[0].removeprefix(codecs.BOM_UTF8), *lines[1:]]
    try:
        return parse(unmarked)
    except ValueError:
        found = []
        for line, text in zip(lines, unmarked, strict=True):
            row += 1
            try:
                found += parse([text])
            except ValueError as error:
                note(Fault(file, offset, f"line {row:,} {first_line(error)}"))
                found.append(None)
            offset += len(line) + 1
        return found


def _decoded(lines: list[bytes]) -> list[str]:
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
    decoded = text.split("\n")
    return [line.removesuffix("\r") for line in decoded] if "\r" in text else decoded


def _texts_of_json(lines: list[bytes], column: str) -> list[str]:
    return _texts_of(_rows_of_json(lines), column)


def _texts_of(rows: list[dict[str, Any]], column: str) -> list[str]:
    texts = [row.get(column) or "" for row in rows]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"holds in '{column}' what is not text")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise ValueError(f"has half of a surrogate pair in '{column}'") from None
    return texts


def _rows_of_json(lines: list[bytes]) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) if line and not line.isspace() else {} for line in _decoded(lines)]
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("is no JSON that can be read (nested too deeply)") from None
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(NO_OBJECT)
    return rows


def _is_array(file: str) -> bool:
    """Whether a file of JSON holds one array of all rows, instead of a row a line."""
    return _kind(file) == ".json" and next(_chunks(file), b"").lstrip()[:1] == b"["


def _array(file: str) -> list[dict[str, Any]]:
    rows = json.loads(b"".join(_chunks(file)))
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(NO_OBJECT)
    return rows


# Tables


def _look_through_csv(file: str) -> Scan:
    scan = _look_through_lines(file, can_cut=False)  # the end of a line may be within a row
    counted = [replace(block, num_rows=sum(1 for _ in _rows_of_csv(block, _ignore))) for block in scan.blocks]
    return scan._replace(blocks=[block for block in counted if block.num_rows])


def _read_csv(block: Block, column: str | None, note: Note) -> Iterator[Texts]:
    assert column is not None
    place, size = _header(block.file).index(column), 0
    texts: list[str | None] = []
    for row in islice(_rows_of_csv(block, note), block.skip, block.skip + block.num_rows):
        if place < len(row):
            texts.append(row[place])
            size += len(row[place])
        else:
            note(Fault(block.file, block.start, f"a row has {len(row)} fields and none for '{column}': {row}"))
            texts.append(None)
        if len(texts) == ROWS_A_BATCH or size > BYTES_A_BATCH:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def _rows_of_csv(block: Block, note: Note) -> Iterator[list[str]]:
    """The rows of a block without the names of the columns and without empty ones."""

    def lines() -> Iterator[str]:
        for offset, row, lines in _batches_of_lines(replace(block, skip=0, num_rows=sys.maxsize)):
            decoded = _parsed(_decoded, block.file, offset, row, lines, note)
            yield from (f"{line}\n" for line in decoded if line is not None)

    csv.field_size_limit(BYTES_A_LINE)
    rows = csv.reader(lines())
    if block.start == 0:
        next(rows, None)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            note(Fault(block.file, block.start, f"row {rows.line_num:,} cannot be read ({first_line(error)})"))
            continue
        if row:
            yield row


def _header(file: str) -> list[str]:
    first = next(_chunks(file), b"").removeprefix(codecs.BOM_UTF8).partition(b"\n")[0]
    return next(csv.reader([first.decode(errors="replace").removesuffix("\r")]), [])


@contextlib.contextmanager
def _parquet(file: str):
    import pyarrow.parquet

    with _open(file) as opened:
        yield pyarrow.parquet.ParquetFile(opened)


def _look_through_parquet(file: str) -> Scan:
    content = content_of([file.encode()] if file.startswith(HUB) else _chunks(file))  # a commit stands in the name
    blocks, start, row, size = [], 0, 0, 0
    with _parquet(file) as table:
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
    num_rows = 0
    for number, group in enumerate(groups, start=1):
        num_rows, size = num_rows + group.num_rows, size + group.total_byte_size
        if num_rows and (size >= BYTES_A_BLOCK or number == len(groups)):
            blocks.append(Block(file, start, number, row, num_rows))
            start, row, num_rows, size = number, row + num_rows, 0, 0
    faults = [] if blocks else [Fault(file, 0, "there is no row in it")]
    return Scan(content, blocks, faults)


def _read_parquet(block: Block, column: str | None, note: Note) -> Iterator[Texts]:
    import pyarrow

    first, last, texts = block.skip, block.skip + block.num_rows, []  # type: ignore[var-annotated]
    with _parquet(block.file) as table:
        groups = {number: table.metadata.row_group(number) for number in range(block.start, block.stop)}
        parts = {number: _part(group, column) for number, group in groups.items()}
        largest = max(
            parts[number].total_uncompressed_size / max(1, group.num_rows) for number, group in groups.items()
        )
        size = max(1, min(ROWS_A_BATCH, int(BYTES_A_BATCH / max(1, largest))))
        start = 0  # of the group, in rows of the block
        for number, group in groups.items():
            row, end = start, start + group.num_rows
            try:
                if start < last and end > first:
                    for batch in table.iter_batches(size, row_groups=[number], columns=[column]):
                        values = batch.column(0).to_pylist()[max(0, first - row) : max(0, last - row)]
                        row += batch.num_rows
                        texts += [value or "" for value in values]
                        while len(texts) >= size:
                            yield texts[:size]
                            texts = texts[size:]
            except (pyarrow.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what is on it
                    raise
                what = f"row group {number:,} cannot be read ({first_line(error)})"
                note(Fault(block.file, parts[number].data_page_offset, what))
                texts += [None] * (min(last, end) - max(first, row))
            start = end
    if texts:
        yield texts


def _part(group, column: str | None):
    """What the metadata say of a column in a row group."""
    columns = (group.column(number) for number in range(group.num_columns))
    return next(part for part in columns if part.path_in_schema == column)


def _ignore(fault: Fault) -> None:
    pass
