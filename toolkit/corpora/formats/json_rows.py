"""JSON: one object per line, or one array of objects."""

import codecs
import json
from collections.abc import Iterator
from functools import partial

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, chunks_of, column_types, content_hash
from toolkit.corpora.formats import lines

BYTES_OF_ARRAY = 64 << 20  # maximum, since an array is read as a whole


def scan(file: str) -> Scan:
    """Find the blocks of a file with one object per line."""
    found = lines.scan(file, ".jsonl")
    batches = (rows for block in found.blocks for rows in lines.read_parsed(block, _load_lines, lambda fault: None))
    types = map(_column_types, batches)
    return found._replace(columns=next(filter(None, types), {}))  # those of the first batch with an object


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
    found = [Block(file, ".json", 0, len(content), 0, len(rows))] if rows else []
    return Scan(content_hash([content]), found, [], _column_types(rows))


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    """Read the texts of a block of lines in batches."""
    return lines.read_parsed(block, lambda of_lines: _texts(_load_lines(of_lines), column), note)


def read_array(block: Block, column: str, note: Note) -> Iterator[Texts]:
    """Read the texts of an array in batches."""
    rows = _load_array(b"".join(chunks_of(block.file, block.start, block.stop)))
    for part in block.divided(blocks.ROWS_A_BATCH):
        batch = rows[part.skip : part.skip + part.num_rows]
        texts, errors = lines.parse_all(batch, partial(_texts, column=column))
        for number, error in errors.items():
            note(Fault(block.file, 0, f"object {part.skip + number + 1:,} of the array {error}"))
        yield texts


def _column_types(rows: list) -> dict[str, str]:
    objects = [row for row in rows if isinstance(row, dict)]
    names = dict.fromkeys(name for row in objects for name in row)
    return column_types({name: [row.get(name) for row in objects] for name in names})


def _texts(rows: list, column: str) -> list[str]:
    """The texts of objects, "" for an object without one. Raises `ValueError` for the first bad object."""
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError('is no JSON object with a text, like {"text": "…"}')
    found = [row.get(column) for row in rows]
    texts = ["" if text is None else text for text in found]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"holds in '{column}' what is not text")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise ValueError(f"has half of a surrogate pair in '{column}'") from None
    return texts


def _load_lines(of_lines: list[bytes]) -> list:
    """Parse lines, {} for an empty one. Raises `ValueError` for the first bad line."""
    try:
        return [json.loads(line) if line and not line.isspace() else {} for line in lines.decode(of_lines)]
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("is no JSON that can be read (nested too deeply)") from None


def _load_array(content: bytes) -> list:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
