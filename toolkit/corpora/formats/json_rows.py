"""JSON: one object per line, or one array of objects."""

import codecs
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, chunks_of, column_types, content_hash
from toolkit.corpora.formats import lines
from toolkit.errors import first_line

FORMAT, ARRAY = "json", "json array"
BYTES_OF_ARRAY = 64 << 20  # maximum, since an array is read as a whole


def scan(file: str) -> Scan:
    """Find the blocks of a file with one object per line."""
    found = lines.scan(file, FORMAT)
    batches = (rows for block in found.blocks for rows in lines.read_parsed(block, _objects, lambda fault: None))
    rows = next(filter(None, ([row for row in batch if row] for batch in batches)), [])
    return found._replace(columns=_column_types(rows))


def scan_any(file: str) -> Scan:
    """Find the blocks of a file with one object per line or one array."""
    start = next(chunks_of(file, 0, 1 << 10), b"")
    if not start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return scan(file)
    content = b"".join(chunks_of(file, 0, BYTES_OF_ARRAY + 1))
    if len(content) > BYTES_OF_ARRAY:
        raise ValueError(
            f"one array of more than {BYTES_OF_ARRAY:,} bytes, which has to be read at once; write an object a line: "
            "jq -c '.[]'"
        )
    rows = _load_array(content)
    found = [Block(file, ARRAY, 0, len(content), 0, len(rows))] if rows else []
    return Scan(content_hash([content]), found, [], _column_types([row for row in rows if isinstance(row, dict)]))


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    """Read the texts of a block of lines in batches."""
    return lines.read_parsed(block, lambda of_lines: _texts(_objects(of_lines), column), note)


def read_array(block: Block, column: str, note: Note) -> Iterator[Texts]:
    """Read the texts of an array in batches."""
    rows = _load_array(b"".join(chunks_of(block.file, block.start, block.stop)))
    end = block.skip + block.num_rows
    for start in range(block.skip, end, blocks.ROWS_A_BATCH):

        def report(number: int, error: ValueError, start=start) -> None:
            note(Fault(block.file, 0, f"object {start + number + 1:,} of the array {first_line(error)}"))

        batch = rows[start : min(start + blocks.ROWS_A_BATCH, end)]
        yield lines.parse_all(batch, partial(_texts, column=column), report)


def _column_types(rows: list[dict[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(name for row in rows for name in row)
    return column_types({name: [row.get(name) for row in rows] for name in names})


def _texts(rows: list, column: str) -> list[str]:
    """The texts of objects, "" for an object without one. Raises `ValueError` for the first bad object."""
    _check_objects(rows)
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
    """Parse lines, {} for an empty one. Raises `ValueError` for the first bad line."""
    try:
        rows = [json.loads(line) if line and not line.isspace() else {} for line in lines.decode(of_lines)]
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("is no JSON that can be read (nested too deeply)") from None
    _check_objects(rows)
    return rows


def _check_objects(rows: list) -> None:
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError('is no JSON object with a text, like {"text": "…"}')


def _load_array(content: bytes) -> list:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
