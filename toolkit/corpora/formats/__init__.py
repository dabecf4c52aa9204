"""The formats of text: how each is scanned and cut into blocks, and how a block is read in batches.

A row is a line of a text file, or the text in one column of a table. No file is held in memory.
"""

from collections.abc import Iterator
from pathlib import Path

from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts
from toolkit.corpora.formats import csv_rows, json_rows, lines, parquet
from toolkit.data.files import HUB, is_damage, read_errors
from toolkit.data.splits import suffix_of
from toolkit.errors import InputError, RunFailed, first_line

_FORMATS = {  # by the suffix of files: how they are scanned, and how their blocks are read
    ".txt": (lines.scan, lines.read),
    ".jsonl": (json_rows.scan, json_rows.read),
    ".json": (json_rows.scan_any, json_rows.read_array),
    ".csv": (csv_rows.scan, csv_rows.read),
    ".tsv": (csv_rows.scan, csv_rows.read),
    ".parquet": (parquet.scan, parquet.read),
}
SUFFIXES = set(_FORMATS)


def scan_file(file: str) -> Scan:
    """Read a file once to find its blocks. What cannot be read is a fault, and in no block."""
    scan_format, _ = _FORMATS[suffix_of(Path(file))]
    try:
        scan = scan_format(file)
    except read_errors(file) as error:
        if file.startswith(HUB) and not is_damage(error):
            raise _unreadable_now(file, error) from None
        return Scan("", [], [Fault(file, 0, f"cannot be read ({first_line(error)})")])
    if scan.blocks or scan.faults:
        return scan
    return scan._replace(faults=[Fault(file, 0, "there is no row in it")])


def read_block(block: Block, column: str | None, note: Note) -> Iterator[Texts]:
    """Read the texts of a block in batches; of a table those in `column`, "" for a row that has none."""
    _, read = _FORMATS[block.format]
    try:
        yield from read(block, column or "", note)
    except InputError:
        raise
    except read_errors(block.file) as error:  # of a file that could be read when it was scanned
        raise _unreadable_now(block.file, error) from None


def _unreadable_now(file: str, error: Exception) -> RunFailed:
    """A failure that may pass, so nothing is left out because of it."""
    return RunFailed(f"{file}: cannot be read now ({first_line(error)}); repeat the command")
