"""A corpus as a `datasets.Dataset`: one row a line, empty rows between documents, memory-mapped in Arrow."""

from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import AsItIs, rows_made_of


def load_text(source: str, split: str | None = None, text_column: str | None = None):
    """A `datasets.Dataset` with the column `text`, one row a line of a text file or a row of a table.

    `source` is what `open_corpus` takes. Raises `InputError` where it is missing, empty, binary, not UTF-8, or has no
    such column.
    """
    return rows_made_of(open_corpus(source, split, text_column), AsItIs())
