"""The formats of text: how each is looked through and cut into blocks, and how a block is read in batches.

A row is a line of a text file, or of a table the text in one of its columns. No file is held in memory.
"""

from collections.abc import Iterator
from pathlib import Path

from toolkit.corpora.blocks import HUB, READ_ERRORS, Block, Fault, Note, Scan, Texts, is_damage
from toolkit.corpora.formats import csv_rows, json_rows, lines, parquet
from toolkit.data.sources import suffix_of
from toolkit.errors import InputError, RunFailed, first_line

_LOOK = {
    ".txt": lines.look_through,
    ".jsonl": json_rows.look_through,
    ".json": json_rows.look_through_json,
    ".csv": csv_rows.look_through,
    ".parquet": parquet.look_through,
}
_READ = {
    lines.FORMAT: lines.read,
    json_rows.FORMAT: json_rows.read,
    json_rows.ARRAY: json_rows.read_array,
    csv_rows.FORMAT: csv_rows.read,
    parquet.FORMAT: parquet.read,
}
SUFFIXES = set(_LOOK)


def look_through(file: str) -> Scan:
    """Read a file once. What of it cannot be read is a fault, and in no block."""
    try:
        scan = _LOOK[suffix_of(Path(file))](file)
    except _read_errors(file) as error:
        if file.startswith(HUB) and not is_damage(error):
            raise _gone(file, error) from None
        return Scan("", [], [Fault(file, 0, f"cannot be read ({first_line(error)})")])
    if scan.blocks or scan.faults:
        return scan
    return scan._replace(faults=[Fault(file, 0, "there is no row in it")])


def read_block(block: Block, column: str | None, note: Note) -> Iterator[Texts]:
    """The texts of a block in batches, of a table those in `column`; "" where a row of a table has none."""
    try:
        yield from _READ[block.format](block, column or "", note)
    except InputError:
        raise
    except _read_errors(block.file) as error:  # of a file that was read whole before
        raise _gone(block.file, error) from None


def _gone(file: str, error: Exception) -> RunFailed:
    """It may pass, so nothing is left out for it."""
    return RunFailed(f"{file}: cannot be read now ({first_line(error)}); repeat the command")


def _read_errors(file: str) -> tuple[type[Exception], ...]:
    if not file.startswith(HUB):
        return READ_ERRORS
    import httpx2

    return (*READ_ERRORS, httpx2.HTTPError)
