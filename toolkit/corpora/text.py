"""A corpus as a `datasets.Dataset`."""

from toolkit.corpora.arguments import OnError
from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.formats import SUFFIXES
from toolkit.corpora.prepared import AsItIs, rows_made_of
from toolkit.data.sources import find_splits
from toolkit.data.summary import DataSummary

CHARACTERS_SHOWN = 80


def load_text(source: str, split: str | None = None, text_column: str | None = None, on_error: OnError = "fail"):
    """Load text as a `datasets.Dataset` with the column `text`: lines of a text file, or rows of a table.

    Takes the sources of `open_corpus` and raises `InputError` as it does.
    """
    return rows_made_of(open_corpus(source, split, text_column, on_error), AsItIs())


def describe_text(source: str, num_rows: int = 3) -> list[str]:
    """Lines that say how pretraining would read a source: its splits, their first texts, what is left out."""
    found = find_splits(source, SUFFIXES)
    summary, lines = DataSummary(source, found), []
    for split in found.splits or (None,):
        rows = load_text(source, split)
        summary.add(split or "train", rows)
        shown = [f"{text[:CHARACTERS_SHOWN]!r}" for text in rows[:num_rows]["text"]]
        lines += [f"{split or 'train'}, row {number}: {text}" for number, text in enumerate(shown, start=1)]
    return [*summary.lines(), *lines]
