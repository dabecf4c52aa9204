"""Text to pretrain on: one row a line, empty rows between documents, memory-mapped in Arrow. Labelled texts: one row a
text, with its label."""

import bz2
import re
from collections.abc import Iterator
from pathlib import Path

from toolkit.data import source as sources
from toolkit.data.corpus import USUAL_COLUMNS, open_corpus
from toolkit.data.prepared import AsItIs, rows_made_of
from toolkit.errors import InputError
from toolkit.results import write_text


def load_text(source: str, split: str | None = None, text_column: str | None = None):
    """A `datasets.Dataset` with the column `text`, one row a line of a text file or a row of a table.

    `source` is what `open_corpus` takes. Raises `InputError` where it is missing, empty, binary, not UTF-8, or has no
    such column.
    """
    return rows_made_of(open_corpus(source, split, text_column), AsItIs())


def load_labelled_text(
    source: str, split: str | None = None, text_column: str | None = None, label_column: str | None = None
):
    """A `datasets.Dataset` with the columns `text` and `label`, a string.

    `source` is a file, folder or glob of `.jsonl`, `.csv` or `.parquet` with labels that are `ClassLabel`, strings or
    whole numbers, a folder with one folder of `.txt` files a label, a Hub id, or `sample`: sentences of the sample
    treebank with their genre. Raises `InputError` where it is missing, malformed, or a text has no label.
    """
    import datasets

    if source == sources.SAMPLE:
        return datasets.Dataset.from_list(list(_sample_genres(split or "train")))
    if folders := sources.find_class_folders(source, {".txt"}):
        files, labels = sources.class_files_of_split(source, folders, split)
        texts = [sources.read_text(file).strip() for file in files]
        return datasets.Dataset.from_dict({"text": texts, "label": labels})
    rows = sources.load_table(source, sources.find_files(source, set(sources.TABLE_BUILDERS), split), split)
    text = sources.choose_column(source, rows.column_names, "text_column", text_column, USUAL_COLUMNS)
    labels = sources.labels_of_table(source, rows, label_column)
    return datasets.Dataset.from_dict({"text": sources.full_column(source, rows, text), "label": labels})


def splits_of_labelled_text(source: str) -> list[str]:
    """The splits that a folder or a data set of the Hub has; none of a single file or a pattern."""
    return sources.splits_of(source, set(sources.TABLE_BUILDERS), sources.find_class_folders(source, {".txt"}))


# The sample: English Wikipedia and news that gensim installs with itself.

_SAMPLE_WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_SAMPLE_NEWS = "lee_background.cor"
_SAMPLE_VALIDATION_ARTICLES = 10
_SAMPLE_VERSION = 1


def sample_file(split: str, folder: Path) -> Path:
    """The text of the sample, which is taken out of gensim's files once and kept in the folder.

    Raises `InputError` where there is no such split.
    """
    from gensim import __version__

    if split not in ("train", "validation"):
        raise InputError(f"{sources.SAMPLE}: no split '{split}' of this text, expected train or validation")
    file = folder / f"sample-{_SAMPLE_VERSION}-gensim-{__version__}-{split}.txt"
    if not file.is_file():
        write_text(file, "".join(f"{line}\n" for line in _sample_lines(split)))
    return file


def _sample_lines(split: str) -> Iterator[str]:
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki
    from gensim.test.utils import datapath

    with bz2.open(datapath(_SAMPLE_WIKIPEDIA)) as file:
        articles = [filter_wiki(text) for _, text, _ in extract_pages(file)]
    documents = [list(_paragraphs(article)) for article in articles]
    held_out, documents = documents[-_SAMPLE_VALIDATION_ARTICLES:], documents[:-_SAMPLE_VALIDATION_ARTICLES]
    news = Path(datapath(_SAMPLE_NEWS)).read_text(encoding="utf-8").splitlines()
    for document in {"train": [*documents, *([line] for line in news)], "validation": held_out}[split]:
        yield from [*document, ""]


def _paragraphs(article: str) -> Iterator[str]:
    """The running text of an article: no headings, tables, lists or captions, no wiki quotes."""
    for line in article.splitlines():
        line = re.sub(r"\s+", " ", line.replace("'''", "").replace("''", "")).strip()
        if len(line.split()) >= 8 and line[0] not in "=*#:;|!{}<" and line[-1] in '.!?"':
            yield line


def _sample_genres(split: str) -> Iterator[dict[str, str]]:
    (file,) = sources.find_files(str(sources.SAMPLE_TREEBANK), {".conllu"}, split) or []
    values = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            name, _, value = line[2:].partition(" = ")
            values[name] = value
        elif not line:
            yield {"text": values["text"], "label": values["genre"]}
