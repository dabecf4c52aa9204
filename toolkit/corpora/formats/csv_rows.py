"""Rows of CSV or TSV, the first of which names the columns. In a TSV a quote is a character like any other."""

import csv
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, column_types
from toolkit.corpora.formats import lines
from toolkit.data.files import stamp_of
from toolkit.data.splits import suffix_of
from toolkit.errors import first_line


def scan(file: str) -> Scan:
    """Find the blocks of a file, which end between rows."""
    parts = lines.scan(file, can_cut=False)  # a line can end within a row
    if parts.blocks and parts.blocks[0].start:
        raise ValueError("the names of the columns are too long")
    names: list[str] | None = None
    first_rows: list[list[str]] = []
    found, row = [], 0
    for part in parts.blocks:
        rows = _rows(file, part.start, part.stop)
        if names is None and (header := next(rows, None)):
            if isinstance(header[1], Fault):
                raise ValueError(f"the names of the columns: {header[1].what}")
            names = header[1]
        cuts: list[tuple[int, int]] = []  # the byte and the number of the row where each block starts
        for start, fields in rows:
            if not cuts or start - cuts[-1][0] >= blocks.BYTES_A_BLOCK:
                cuts.append((start, row))
            row += 1
            if len(first_rows) < blocks.ROWS_LOOKED_AT and not isinstance(fields, Fault):
                first_rows.append(fields)
        for (start, first_row), (stop, next_row) in pairwise([*cuts, (part.stop, row)]):
            found.append(Block(file, suffix_of(Path(file)), start, stop, first_row, next_row - first_row))
    columns: dict[str, list] = {}
    for i, name in enumerate(names or []):  # of several columns with one name, the first is read
        columns.setdefault(name, [fields[i] for fields in first_rows if i < len(fields)])
    return parts._replace(blocks=found, columns=column_types(columns))


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    """Read the texts of a block in batches."""
    names = _names(block.file, stamp_of(block.file))
    if column not in names:
        raise OSError("it has changed")
    place = names.index(column)
    texts: list[str | None] = []
    size = 0
    rows = _rows(block.file, block.start, block.stop)
    for start, fields in islice(rows, block.skip, block.skip + block.num_rows):
        text = None
        if isinstance(fields, Fault):
            note(fields)
        elif place < len(fields):
            text = fields[place]
        else:
            note(Fault(block.file, start, f"a row has {len(fields)} fields and none for '{column}'"))
        texts.append(text)
        size += len(text or "")
        if len(texts) == blocks.ROWS_A_BATCH or size > blocks.BYTES_A_BATCH:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


@lru_cache(maxsize=16)
def _names(file: str, stamp: tuple) -> list[str]:
    return next((names for _, names in _rows(file) if not isinstance(names, Fault)), [])


def _rows(file: str, start: int = 0, stop: int = sys.maxsize) -> Iterator[tuple[int, list[str] | Fault]]:
    """Read the rows that are not empty: the offset of each, and its fields or why it cannot be read."""
    fault: Fault | None = None  # of the first bad line of the row
    end, is_over = start, False  # of what the reader has asked for

    def decoded_lines() -> Iterator[str]:
        nonlocal fault, end, is_over
        for batch in lines.raw_lines(file, start, stop):
            decoded, errors = lines.parse_all(lines.without_mark(batch, end), lines.decode)
            for number, (line, text) in enumerate(zip(batch, decoded, strict=True)):
                if number in errors:
                    fault = fault or Fault(file, end, f"a line {errors[number]}")
                    text = line.decode(errors="replace").replace("\0", "\ufffd")  # its commas and quotes count
                end += len(line) + 1
                yield f"{text}\n"
        is_over = True

    csv.field_size_limit(blocks.BYTES_A_LINE)
    is_tsv = suffix_of(Path(file)) == ".tsv"
    dialect: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if is_tsv else {}
    reader = csv.reader(decoded_lines(), **dialect)
    while True:
        place = end
        try:
            found: list[str] | Fault = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found = Fault(file, place, f"a row cannot be read ({first_line(error)}); is a quote not closed?")
        if is_over:  # the reader has asked for another line
            found = Fault(file, place, "a quote that is not closed")
        if found := fault or found:
            yield place, found
        fault = None
