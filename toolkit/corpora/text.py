"""A corpus as a `datasets.Dataset`."""

from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import AsItIs, rows_made_of


def load_text(source: str, split: str | None = None, text_column: str | None = None):
    """Load text as a `datasets.Dataset` with the column `text`: lines of a text file, or rows of a table.

    Takes the sources of `open_corpus` and raises `InputError` as it does.
    """
    return rows_made_of(open_corpus(source, split, text_column), AsItIs())
