"""A corpus as a `datasets.Dataset`."""

from toolkit.corpora.arguments import OnError
from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.formats import SUFFIXES
from toolkit.corpora.prepared import AsItIs, rows_made_of
from toolkit.data.sources import Source, find_splits


def load_text(source: str, split: str | None = None, text_column: str | None = None, on_error: OnError = "fail"):
    """Load text as a `datasets.Dataset` with the column `text`: lines of a text file, or rows of a table.

    Takes the sources of `open_corpus` and raises `InputError` as it does.
    """
    return rows_made_of(open_corpus(source, split, text_column, on_error), AsItIs())


def open_text(source: str, text_column: str | None = None) -> Source:
    """Open text: rows with the column `text`, from the sources of `open_corpus`."""
    return Source(source, find_splits(source, SUFFIXES), lambda split: load_text(source, split, text_column))
