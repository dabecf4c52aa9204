"""JSON: an object a line, or one array of objects."""

import codecs
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, chunks_of, content_of, kinds_of
from toolkit.corpora.formats import lines
from toolkit.errors import first_line

FORMAT, ARRAY = "json", "json array"
BYTES_OF_ARRAY = 64 << 20  # of which all is read at once
NO_OBJECT = 'is no JSON object with a text, like {"text": "…"}'


def look_through(file: str) -> Scan:
    scan = lines.look_through(file, FORMAT)
    return scan._replace(columns=_columns(_first_rows(scan.blocks)))


def look_through_json(file: str) -> Scan:
    """The same of a file that may hold one array."""
    start = next(chunks_of(file, 0, 1 << 10), b"")
    is_array = start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    return _look_through_array(file) if is_array else look_through(file)


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    return lines.read_lines(block, partial(_texts_of_lines, column=column), note)


def _first_rows(found: list[Block]) -> list[dict[str, Any]]:
    """Those of the first batch in which any can be read."""
    for block in found:
        for rows in lines.read_lines(block, _objects, lambda fault: None):
            if some := [row for row in rows if row]:
                return some
    return []


def _columns(rows: list[dict[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(name for row in rows for name in row)
    return kinds_of({name: [row.get(name) for row in rows] for name in names})


def _texts_of_lines(of_lines: list[bytes], column: str) -> list[str]:
    return _texts(_objects(of_lines), column)


def _texts_of_objects(rows: list, column: str) -> list[str]:
    _check_objects(rows)
    return _texts(rows, column)


def _texts(rows: list[dict[str, Any]], column: str) -> list[str]:
    found = [row.get(column) for row in rows]
    texts = ["" if text is None else text for text in found]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"holds in '{column}' what is not text")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise ValueError(f"has half of a surrogate pair in '{column}'") from None
    return texts


def _objects(of_lines: list[bytes]) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) if line and not line.isspace() else {} for line in lines.decoded(of_lines)]
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("is no JSON that can be read (nested too deeply)") from None
    _check_objects(rows)
    return rows


def _check_objects(rows: list) -> None:
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(NO_OBJECT)


def _look_through_array(file: str) -> Scan:
    content = b"".join(chunks_of(file, 0, BYTES_OF_ARRAY + 1))
    if len(content) > BYTES_OF_ARRAY:
        raise ValueError(
            f"one array of more than {BYTES_OF_ARRAY:,} bytes, which has to be read at once; write an object a line: "
            "jq -c '.[]'"
        )
    rows = _array(content)
    found = [Block(file, ARRAY, 0, len(content), 0, len(rows))] if rows else []
    return Scan(content_of([content]), found, [], _columns([row for row in rows if isinstance(row, dict)]))


def read_array(block: Block, column: str, note: Note) -> Iterator[Texts]:
    rows = _array(b"".join(chunks_of(block.file, block.start, block.stop)))
    parse, end = partial(_texts_of_objects, column=column), block.skip + block.num_rows
    for start in range(block.skip, end, blocks.ROWS_A_BATCH):

        def bad(number: int, error: ValueError, start=start) -> None:
            note(Fault(block.file, 0, f"object {start + number + 1:,} of the array {first_line(error)}"))

        yield lines.parsed(rows[start : min(start + blocks.ROWS_A_BATCH, end)], parse, bad)


def _array(content: bytes) -> list:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
