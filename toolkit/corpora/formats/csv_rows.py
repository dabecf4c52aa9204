"""Rows of .csv, the first of which names the columns."""

import csv
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, kinds_of, stamp_of
from toolkit.corpora.formats import lines
from toolkit.errors import first_line

FORMAT = "csv"


def look_through(file: str) -> Scan:
    scan = lines.look_through(file, FORMAT, can_cut=False)  # the end of a line may be within a row
    if scan.blocks and scan.blocks[0].start:
        raise ValueError("the names of the columns are too long")
    names: list[str] | None = None
    looked_at: list[list[str]] = []
    found, row = [], 0
    for piece in scan.blocks:
        start, first_row = -1, row
        for place, fields in _rows(file, piece.start, piece.stop):
            if names is None:
                if isinstance(fields, Fault):
                    raise ValueError(f"the names of the columns: {fields.what}")
                names = fields
                continue
            if start < 0:
                start = place
            elif place - start >= blocks.BYTES_A_BLOCK:
                found.append(Block(file, FORMAT, start, place, first_row, row - first_row))
                start, first_row = place, row
            row += 1
            if len(looked_at) < blocks.ROWS_LOOKED_AT and not isinstance(fields, Fault):
                looked_at.append(fields)
        if row > first_row:
            found.append(Block(file, FORMAT, start, piece.stop, first_row, row - first_row))
    columns: dict[str, list] = {}
    for i, name in enumerate(names or []):  # of several with one name the first is read
        columns.setdefault(name, [fields[i] for fields in looked_at if i < len(fields)])
    return scan._replace(blocks=found, columns=kinds_of(columns))


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    names = _names(block.file, stamp_of(block.file))
    if column not in names:
        raise OSError("it has changed")
    place = names.index(column)
    texts: list[str | None] = []
    size = 0
    rows = _rows(block.file, block.start, block.stop)
    for start, fields in islice(rows, block.skip, block.skip + block.num_rows):
        if not isinstance(fields, Fault) and place >= len(fields):
            fields = Fault(block.file, start, f"a row has {len(fields)} fields and none for '{column}'")
        if isinstance(fields, Fault):
            note(fields)
            texts.append(None)
        else:
            texts.append(fields[place])
            size += len(fields[place])
        if len(texts) == blocks.ROWS_A_BATCH or size > blocks.BYTES_A_BATCH:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


@lru_cache(maxsize=16)
def _names(file: str, stamp: tuple) -> list[str]:
    return next((names for _, names in _rows(file, 0, sys.maxsize) if not isinstance(names, Fault)), [])


def _rows(file: str, start: int, stop: int) -> Iterator[tuple[int, list[str] | Fault]]:
    """Where each row begins and its fields, or why it cannot be read, without empty rows."""
    bad: Fault | None = None  # the first such line of the row
    end, is_over = start, False  # of what was read

    def decoded_lines() -> Iterator[str]:
        nonlocal bad, end, is_over
        for offset, _, batch in lines.batches(Block(file, FORMAT, start, stop, 0, sys.maxsize)):
            errors: dict[int, ValueError] = {}
            decoded = lines.parsed(lines.without_mark(batch, offset), lines.decoded, errors.__setitem__)
            for number, (line, text) in enumerate(zip(batch, decoded, strict=True)):
                if number in errors:
                    bad = bad or Fault(file, end, f"a line {first_line(errors[number])}")
                    text = line.decode(errors="replace").replace("\0", "\ufffd")  # its commas and quotes count
                end += len(line) + 1
                yield f"{text}\n"
        is_over = True

    csv.field_size_limit(blocks.BYTES_A_LINE)
    reader = csv.reader(decoded_lines())
    while True:
        place = end
        try:
            found: list[str] | Fault = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found = Fault(file, place, f"a row cannot be read ({first_line(error)}); is a quote not closed?")
        if is_over:  # the reader asked for another line
            found = Fault(file, place, "a quote that is not closed")
        if found := bad or found:
            yield place, found
        bad = None
