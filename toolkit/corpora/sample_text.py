"""The sample text: English Wikipedia and news that gensim installs with itself."""

import bz2
import re
from collections.abc import Iterator
from pathlib import Path

from toolkit.data.sources import SAMPLE
from toolkit.errors import InputError
from toolkit.runs.output import write_text

_WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_NEWS = "lee_background.cor"
_VALIDATION_ARTICLES = 10
_VERSION = 1


def sample_file(split: str, folder: Path) -> Path:
    """The file of a split, extracted once from the files of gensim into a folder. Raises `InputError` for others."""
    from gensim import __version__

    if split not in ("train", "validation"):
        raise InputError(f"{SAMPLE}: no split '{split}' of this text, expected train or validation")
    file = folder / f"sample-{_VERSION}-gensim-{__version__}-{split}.txt"
    if not file.is_file():
        write_text(file, "".join(f"{line}\n" for line in _lines(split)))
    return file


def _lines(split: str) -> Iterator[str]:
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki
    from gensim.test.utils import datapath

    with bz2.open(datapath(_WIKIPEDIA)) as file:
        articles = [filter_wiki(text) for _, text, _ in extract_pages(file)]
    documents = [list(_paragraphs(article)) for article in articles]
    held_out, documents = documents[-_VALIDATION_ARTICLES:], documents[:-_VALIDATION_ARTICLES]
    news = Path(datapath(_NEWS)).read_text(encoding="utf-8").splitlines()
    for document in {"train": [*documents, *([line] for line in news)], "validation": held_out}[split]:
        yield from [*document, ""]


def _paragraphs(article: str) -> Iterator[str]:
    """The running text of an article, without headings, tables, lists, captions and wiki quotes."""
    for line in article.splitlines():
        line = re.sub(r"\s+", " ", line.replace("'''", "").replace("''", "")).strip()
        if len(line.split()) >= 8 and line[0] not in "=*#:;|!{}<" and line[-1] in '.!?"':
            yield line
