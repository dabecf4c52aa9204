"""Columns of Parquet files, by row groups."""

import contextlib
from collections.abc import Iterator

from toolkit.corpora import blocks
from toolkit.corpora.blocks import Block, Fault, Note, Scan, Texts, chunks_of, column_types, content_hash
from toolkit.corpora.formats.lines import parse_all
from toolkit.data.files import HUB, is_damage, open_file
from toolkit.errors import first_line

BYTES_OF_PAGES = 1 << 20  # read at a time


def scan(file: str) -> Scan:
    """Find the blocks of a file: row groups together, or parts of a large one."""
    content = content_hash([file.encode()] if file.startswith(HUB) else chunks_of(file))  # a Hub file names its commit
    with _opened(file) as table:
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        columns, text_columns = _column_types(table), _text_columns(table.schema_arrow)
    found: list[Block] = []
    start, row, num_rows, size = 0, 0, 0, 0  # of the block
    for number, group in enumerate(groups):
        num_rows += group.num_rows
        size += max((_chunk_of(group, name).total_uncompressed_size for name in text_columns), default=0)
        if num_rows and (size >= blocks.BYTES_A_BLOCK or number == len(groups) - 1):
            block = Block(file, ".parquet", start, number + 1, row, num_rows)
            found += block.divided(-(-num_rows // max(1, size // blocks.BYTES_A_BLOCK)))  # of a large group, parts
            start, row, num_rows, size = number + 1, row + num_rows, 0, 0
    return Scan(content, found, [], columns)


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    """Read the texts of a block in batches, which are smaller where the texts are long."""
    texts: list[str | None] = []
    row = block.first_row
    with _opened(block.file) as table:
        if table.num_row_groups < block.stop:
            raise OSError("it has changed")
        groups = [table.metadata.row_group(number) for number in range(block.start, block.stop)]
        bytes_a_row = [_chunk_of(group, column).total_uncompressed_size / max(1, group.num_rows) for group in groups]
        size = max(1, min(blocks.ROWS_A_BATCH, int(blocks.BYTES_A_BATCH / max(1, *bytes_a_row))))
        for number, group in enumerate(groups, start=block.start):
            rows = range(row, row + group.num_rows)
            for some in _read_group(table, number, rows, block, column, size, note):
                texts += some
                while len(texts) >= size:
                    yield texts[:size]
                    texts = texts[size:]
            row = rows.stop
    if texts:
        yield texts


def _read_group(table, number: int, rows: range, block: Block, column: str, size: int, note: Note) -> Iterator[Texts]:
    """Read those rows of a group that belong to the block. `rows` are the numbers in the file of all its rows."""
    import pyarrow

    start = block.first_row + block.skip
    row, first, last = rows.start, max(rows.start, start), min(rows.stop, start + block.num_rows)
    if first >= last:
        return
    offset = _chunk_of(table.metadata.row_group(number), column).data_page_offset
    try:
        for batch in table.iter_batches(size, row_groups=[number], columns=[column]):
            values = batch.column(0)[max(0, first - row) : last - row]
            if len(values):
                yield _texts(values, block.file, max(first, row), offset, note)
            row += batch.num_rows
            if row >= last:
                return
    except (pyarrow.ArrowException, OSError) as error:
        if not is_damage(error):
            raise
        first = max(first, row)
        note(Fault(block.file, offset, f"rows {first + 1:,} to {last:,} cannot be read ({first_line(error)})"))
        yield [None] * (last - first)


def _texts(values, file: str, row: int, offset: int, note: Note) -> list[str | None]:
    """The strings of an Arrow array whose first row is `row`, counted from 0; None for one that is not UTF-8."""
    import pyarrow

    try:
        return ["" if value is None else value for value in values.to_pylist()]
    except UnicodeDecodeError:
        if pyarrow.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        encoded = values.cast(pyarrow.large_binary()).to_pylist()
        texts, errors = parse_all(encoded, lambda some: [(value or b"").decode() for value in some])
        for number in errors:
            note(Fault(file, offset, f"row {row + number + 1:,}, in the pages, is not UTF-8"))
        return texts


def _chunk_of(group, column: str):
    """The metadata of a column in a row group."""
    columns = (group.column(number) for number in range(group.num_columns))
    return next(chunk for chunk in columns if chunk.path_in_schema == column)


def _column_types(table) -> dict[str, str]:
    """The type of each column, of text by the first row group that can be read."""
    import pyarrow

    names = _text_columns(table.schema_arrow)
    first: dict[str, list] = {}
    for group in range(table.num_row_groups if names else 0):
        with contextlib.suppress(OSError, ValueError, pyarrow.ArrowException):
            if batch := next(table.iter_batches(blocks.ROWS_LOOKED_AT, row_groups=[group], columns=names), None):
                first = batch.to_pydict()
                break
    types = column_types({name: first.get(name, []) for name in names})
    return {field.name: types.get(field.name, str(field.type)) for field in table.schema_arrow}


def _text_columns(schema) -> list[str]:
    """The columns of strings, plain or dictionary-encoded, and of nulls."""
    from pyarrow import types

    is_text = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    kinds = {field.name: field.type.value_type if types.is_dictionary(field.type) else field.type for field in schema}
    return [name for name, kind in kinds.items() if any(test(kind) for test in is_text)]


@contextlib.contextmanager
def _opened(file: str):
    import pyarrow.parquet

    with open_file(file) as opened:
        yield pyarrow.parquet.ParquetFile(opened, pre_buffer=False, buffer_size=BYTES_OF_PAGES)  # not a whole group
