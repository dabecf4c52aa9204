"""Treebanks in CoNLL-U, and tables with tokens and tags: one row a sentence, `tokens` and `tags`.

The format is https://universaldependencies.org/format.html. Words are the lines with a plain number: a multiword token
(`1-2`) is a spelling of the words after it, an empty node (`8.1`) is not spelled at all; neither is a word.
"""

from collections.abc import Iterator
from pathlib import Path

from toolkit.data import sources
from toolkit.errors import InputError

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
SUFFIXES = {".conllu", *sources.TABLE_BUILDERS}
NO_VALUE = "_"


def read_conllu(path: Path, tag_column: str = "upos") -> Iterator[dict[str, list[str]]]:
    """Yields `{"tokens": […], "tags": […]}` for each sentence.

    `tag_column` is `upos`, `xpos`, another column, or a key of FEATS or MISC such as `Number`; words without it have
    the tag `_`. Raises `InputError` that names the line where one is malformed.
    """
    sources.check_readable_text(path)
    name = tag_column.lower()
    tokens: list[str] = []
    tags: list[str] = []
    with sources.open_text(path) as file:
        for number, line in enumerate(file, start=1):
            line = line.rstrip("\r\n")
            if not line.strip():
                if tokens:
                    yield {"tokens": tokens, "tags": tags}
                tokens, tags = [], []
                continue
            if line.startswith("#"):
                continue
            fields = line.split("\t")
            if len(fields) != len(COLUMNS):
                raise InputError(
                    f"{path}: line {number} has {len(fields)} columns separated by tabs, CoNLL-U has {len(COLUMNS)}"
                )
            if not fields[0].isdigit():
                if not fields[0].replace("-", "", 1).replace(".", "", 1).isdigit():
                    raise InputError(f"{path}: line {number} starts with '{fields[0]}', expected the number of a word")
                continue
            tokens.append(fields[1])
            tags.append(fields[COLUMNS.index(name)] if name in COLUMNS else _value_of(tag_column, fields))
    if tokens:
        yield {"tokens": tokens, "tags": tags}


def _value_of(key: str, fields: list[str]) -> str:
    for column in ("feats", "misc"):
        for pair in fields[COLUMNS.index(column)].split("|"):
            name, _, value = pair.partition("=")
            if name == key:
                return value
    return NO_VALUE


def load_treebank(
    source: str, split: str | None = None, tag_column: str | None = None, token_column: str | None = None
):
    """A `datasets.Dataset` with the columns `tokens` and `tags`, lists of strings of equal length.

    `source` is a `.conllu` or `.conllu.gz` file, a table with lists of tokens and tags, a folder of either with one
    file a split, a Hub id, or `sample`. Raises `InputError` where it is missing, malformed or has no such tags.
    """
    import datasets

    if source == sources.SAMPLE:
        source = str(sources.SAMPLE_TREEBANK)
    files = sources.find_files(source, SUFFIXES, split)
    if files is None or any(sources.suffix_of(file) != ".conllu" for file in files):
        rows = sources.load_table(source, files, split)
        return _from_table(source, rows, tag_column, token_column)
    tag_column = tag_column or "upos"
    sentences = _read_sentences(source, files, tag_column)
    if all(tag == NO_VALUE for sentence in sentences for tag in sentence["tags"]):
        raise InputError(
            f"--tag_column {tag_column}: no word of {source} has it; it is one of {', '.join(COLUMNS[3:5])} "
            "or a key of the columns FEATS and MISC, such as Number"
        )
    return datasets.Dataset.from_list(sentences)


def load_sentences(source: str) -> list[list[str]]:
    """The words alone of a treebank without splits: tags may be lacking. Raises `InputError`."""
    files = sources.find_files(source, SUFFIXES, None)
    if files is not None and all(sources.suffix_of(file) == ".conllu" for file in files):
        return [sentence["tokens"] for sentence in _read_sentences(source, files, "upos")]
    rows = sources.load_table(source, files, None)
    return [tokens for tokens in rows[_token_column(source, rows, None)] if tokens]


def _read_sentences(source: str, files: list[Path], tag_column: str) -> list[dict[str, list[str]]]:
    sentences = [sentence for file in files for sentence in read_conllu(file, tag_column)]
    if not sentences:
        raise InputError(f"{source}: there is no sentence in it")
    return sentences


def _token_column(source: str, rows, named: str | None) -> str:
    column = sources.choose_column(source, rows.column_names, "token_column", named, ("tokens", "words"))
    kind = getattr(getattr(rows.features[column], "feature", None), "dtype", rows.features[column])
    if kind not in ("string", "large_string"):
        raise InputError(f"{source}: the column '{column}' holds {kind}, expected lists of words")
    return column


def _from_table(source: str, rows, tag_column: str | None, token_column: str | None):
    tokens = _token_column(source, rows, token_column)
    usual = ("tags", "upos", "pos_tags", "pos", "ner_tags", "labels")
    tags = sources.choose_column(source, rows.column_names, "tag_column", tag_column, usual)
    kind = getattr(rows.features[tags], "feature", None)
    if kind is None:
        raise InputError(f"{source}: the column '{tags}' holds {rows.features[tags].dtype}, expected lists of tags")
    names = getattr(kind, "names", None)

    def as_strings(row, index: int):
        if None in (values := row[tags] or []):
            raise InputError(f"{source}: row {index + 1} has a word without a tag")
        if len(values) != len(row[tokens] or []):
            raise InputError(f"{source}: row {index + 1} has {len(row[tokens] or [])} tokens and {len(values)} tags")
        return {"tokens": row[tokens] or [], "tags": [names[value] if names else str(value) for value in values]}

    sentences = rows.map(as_strings, with_indices=True, remove_columns=rows.column_names)
    sentences = sentences.filter(lambda row: len(row["tokens"]) > 0)
    if len(sentences) == 0:
        raise InputError(f"{source}: there is no sentence in it")
    return sentences


def split_sentences(text: str) -> list[list[str]]:
    """Plain text as lists of words, as English treebanks have them.

    Sentences are found by Punkt (Kiss & Strunk 2006, https://aclanthology.org/J06-4003).
    """
    from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer

    sentences, words = PunktSentenceTokenizer(), NLTKWordTokenizer()
    found = []
    for line in text.splitlines():
        for start, end in sentences.span_tokenize(line):
            sentence = line[start:end]
            spans = words.span_tokenize(sentence)
            found.append([sentence[begin:stop] for begin, stop in spans])
    return [tokens for tokens in found if tokens]
