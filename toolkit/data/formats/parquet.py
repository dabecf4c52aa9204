"""Columns of parquet, by row groups."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from toolkit.data import blocks
from toolkit.data.blocks import HUB, Block, Fault, Note, Scan, Texts, chunks_of, content_of, kinds_of, open_file
from toolkit.errors import first_line

FORMAT = "parquet"


def look_through(file: str) -> Scan:
    content = content_of([file.encode()] if file.startswith(HUB) else chunks_of(file))  # a commit stands in the name
    with _opened(file) as table:
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        columns = _columns(table)
    found: list[Block] = []
    start, row, num_rows, size = 0, 0, 0, 0  # of the block
    for number, group in enumerate(groups):
        num_rows, size = num_rows + group.num_rows, size + group.total_byte_size
        if num_rows and (size >= blocks.BYTES_A_BLOCK or number == len(groups) - 1):
            whole = Block(file, FORMAT, start, number + 1, row, num_rows)
            found += _parts(whole, size)
            start, row, num_rows, size = number + 1, row + num_rows, 0, 0
    return Scan(content, found, [], columns)


def _parts(block: Block, size: int) -> Iterator[Block]:
    """A block, of a large row group several: to come to one of them those before it are read too."""
    step = max(1, -(-block.num_rows // max(1, size // blocks.BYTES_A_BLOCK)))
    for skip in range(0, block.num_rows, step):
        yield replace(block, skip=skip, num_rows=min(step, block.num_rows - skip))


def read(block: Block, column: str, note: Note) -> Iterator[Texts]:
    import pyarrow

    first, last, texts = block.skip, block.skip + block.num_rows, []  # type: ignore[var-annotated]
    with _opened(block.file) as table:
        groups = {number: table.metadata.row_group(number) for number in range(block.start, block.stop)}
        parts = {number: _part(group, column) for number, group in groups.items()}
        largest = max(
            parts[number].total_uncompressed_size / max(1, group.num_rows) for number, group in groups.items()
        )
        size = max(1, min(blocks.ROWS_A_BATCH, int(blocks.BYTES_A_BATCH / max(1, largest))))
        start = 0  # of the group, in rows of the block
        for number, group in groups.items():
            row, end = start, start + group.num_rows
            try:
                if start < last and end > first:
                    for batch in table.iter_batches(size, row_groups=[number], columns=[column]):
                        if row >= last:
                            break
                        begin, stop = max(0, first - row), min(batch.num_rows, last - row)
                        if begin < stop:
                            values = batch.column(0).slice(begin, stop - begin)
                            texts += _texts(values, block.file, block.first_row + row + begin, parts[number], note)
                        row += batch.num_rows
                        while len(texts) >= size:
                            yield texts[:size]
                            texts = texts[size:]
            except (pyarrow.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what is on it
                    raise
                lost = range(block.first_row + max(first, row), block.first_row + min(last, end))
                what = f"rows {lost.start + 1:,} to {lost.stop:,} cannot be read ({first_line(error)})"
                note(Fault(block.file, parts[number].data_page_offset, what))
                texts += [None] * len(lost)
            start = end
    if texts:
        yield texts


def _texts(values, file: str, row: int, part, note: Note) -> list[str | None]:
    """Arrow's values as strings, None for what is not UTF-8; `row` is the number of the first, from 0."""
    import pyarrow

    try:
        return ["" if value is None else value for value in values.to_pylist()]
    except UnicodeDecodeError:
        if pyarrow.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        found: list[str | None] = []
        for number, value in enumerate(values.cast(pyarrow.large_binary()).to_pylist(), start=row + 1):
            try:
                found.append((value or b"").decode())
            except UnicodeDecodeError:
                note(Fault(file, part.data_page_offset, f"row {number:,}, in the pages, is not UTF-8"))
                found.append(None)
        return found


def _part(group, column: str):
    """What the metadata say of a column in a row group."""
    columns = (group.column(number) for number in range(group.num_columns))
    return next(part for part in columns if part.path_in_schema == column)


def _columns(table) -> dict[str, str]:
    """What there is in each column, by the first row group that can be read."""
    import pyarrow.types as types

    first: dict[str, list] = {}
    for group in range(table.num_row_groups):
        with contextlib.suppress(OSError, ValueError):
            if batch := next(table.iter_batches(blocks.ROWS_LOOKED_AT, row_groups=[group]), None):
                first = batch.to_pydict()
                break

    def is_text(kind) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)

    kinds = kinds_of({name: first.get(name, []) for name in table.schema_arrow.names})
    return {field.name: kinds[field.name] if is_text(field.type) else str(field.type) for field in table.schema_arrow}


@contextlib.contextmanager
def _opened(file: str):
    import pyarrow.parquet

    with open_file(file) as opened:
        yield pyarrow.parquet.ParquetFile(opened)
