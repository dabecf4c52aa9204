"""Treebanks in CoNLL-U, and tables with tokens and tags: one row per sentence, `tokens` and `tags`.

For the format see https://universaldependencies.org/format.html. Only lines with a plain number are words: a multiword
token (`1-2`) is the spelling of the words after it, and an empty node (`8.1`) is not part of the text.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from toolkit.data import sources, table_files
from toolkit.data.files import read_text
from toolkit.data.summary import say_empty
from toolkit.errors import InputError

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
SUFFIXES = {".conllu", *table_files.TABLE_BUILDERS}
USUAL_TAG_COLUMNS = ("tags", "upos", "pos_tags", "pos", "ner_tags", "labels")
NO_VALUE = "_"
MAX_WITHHELD = 0.1  # fraction of words that are withheld


def read_conllu(path: Path, tag_column: str = "upos") -> Iterator[dict[str, list[str]]]:
    """Read the sentences of a file as `{"tokens": […], "tags": […]}`.

    The tag of a word is the value of a column, or of a key of FEATS or MISC such as `Number`, and `_` without it.
    Raises `InputError`, which names the line, if a line is malformed.
    """
    name = tag_column.lower()
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*read_text(path).split("\n"), ""], start=1):
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
        if fields[0].isdigit():
            tokens.append(fields[1])
            tag = fields[COLUMNS.index(name)] if name in COLUMNS else _value_of(tag_column, fields)
            tags.append(unicodedata.normalize("NFC", tag).strip())
        elif not fields[0].replace("-", "", 1).replace(".", "", 1).isdigit():
            raise InputError(f"{path}: line {number} starts with '{fields[0]}', expected the number of a word")


def _value_of(key: str, fields: list[str]) -> str:
    pairs = (pair.partition("=") for column in ("feats", "misc") for pair in fields[COLUMNS.index(column)].split("|"))
    return next((value for name, _, value in pairs if name == key), NO_VALUE)


def open_treebank(source: str, tag_column: str | None = None, token_column: str | None = None) -> sources.Source:
    """Open a treebank: rows with the columns `tokens` and `tags`, lists of strings of equal length.

    The source is a `.conllu` or `.conllu.gz` file; a table with lists of tokens and tags; a folder of either with one
    file per split; a Hub id; or `sample`. `tag_column` is a column or a key, by default `upos` or a usual name. Raises
    `InputError` if the source is missing or malformed, or has no such tags. The tag of a word is None where a table
    has a negative id, which is not trained on and not scored.
    """
    import datasets

    path = str(sources.SAMPLE_TREEBANK) if source == sources.SAMPLE else source
    found = sources.find_splits(path, SUFFIXES)

    def load(split: str | None):
        files = sources.files_to_load(path, found, SUFFIXES, split)
        if files is None or not all(map(_is_conllu, files)):
            return _from_table(path, table_files.load_table(path, files, split), tag_column, token_column)
        name = tag_column or "upos"
        sentences = _read_sentences(path, files, name)
        if all(tag == NO_VALUE for sentence in sentences for tag in sentence["tags"]):
            raise InputError(
                f"--tag_column {name}: no word of {path} has it; it is one of {', '.join(COLUMNS[3:5])} "
                "or a key of the columns FEATS and MISC, such as Number"
            )
        return datasets.Dataset.from_list(sentences)

    def declared_labels() -> list[str] | None:
        files = sources.files_to_load(path, found, SUFFIXES, None)
        if any(map(_is_conllu, files or ())):
            return None
        return table_files.declared_labels(path, files, tag_column, USUAL_TAG_COLUMNS)

    return sources.Source(source, found, load, declared_labels)


def load_treebank(source: str, split: str | None = None, **columns: str | None):
    """Load a split of a treebank as a `datasets.Dataset`, with the columns of `open_treebank`."""
    return open_treebank(source, **columns).load(split)


def _is_conllu(file: Path) -> bool:
    return sources.suffix_of(file) == ".conllu"


def load_sentences(source: str) -> list[list[str]]:
    """The words of a treebank without splits, which needs no tags. Raises `InputError`.

    Prints on stderr how many rows of a table have no words.
    """
    files = sources.find_files(source, SUFFIXES, None)
    if files is not None and all(map(_is_conllu, files)):
        return [sentence["tokens"] for sentence in _read_sentences(source, files, "upos")]
    rows = table_files.load_table(source, files, None)
    sentences = [tokens for tokens in rows[_token_column(source, rows, None)] if tokens]
    say_empty(source, len(rows), len(rows) - len(sentences), "words")
    return sentences


def _read_sentences(source: str, files: list[Path], tag_column: str) -> list[dict[str, list[str]]]:
    sentences = [sentence for file in files for sentence in read_conllu(file, tag_column)]
    if not sentences:
        raise InputError(f"{source}: there is no sentence in it")
    words = [word for sentence in sentences for word in sentence["tokens"]]
    if (share := words.count(NO_VALUE) / len(words)) > MAX_WITHHELD:
        raise InputError(
            f"{source}: {share:.0%} of the words are '{NO_VALUE}': this copy of the treebank has no words"
        )
    return sentences


def _token_column(source: str, rows, named: str | None) -> str:
    column = table_files.choose_column(source, rows.column_names, "token_column", named, ("tokens", "words"))
    kind = getattr(getattr(rows.features[column], "feature", None), "dtype", rows.features[column])
    if kind not in ("string", "large_string"):
        raise InputError(f"{source}: the column '{column}' holds {kind}, expected lists of words")
    return column


def _from_table(source: str, rows, tag_column: str | None, token_column: str | None):
    import datasets

    tokens = _token_column(source, rows, token_column)
    tags = table_files.choose_column(source, rows.column_names, "tag_column", tag_column, USUAL_TAG_COLUMNS)
    kind = getattr(rows.features[tags], "feature", None)
    if kind is None:
        raise InputError(f"{source}: the column '{tags}' holds {rows.features[tags].dtype}, expected lists of tags")
    names = getattr(kind, "names", None)

    def as_strings(row, index: int):
        words, values = row[tokens] or [], row[tags] or []
        if None in values:
            raise InputError(f"{source}: row {index + 1} has a word without a tag")
        if len(values) != len(words):
            raise InputError(f"{source}: row {index + 1} has {len(words)} tokens and {len(values)} tags")
        if names is not None and max(values, default=0) >= len(names):
            raise InputError(f"{source}: row {index + 1} has the id {max(values)} in '{tags}', which has no name")
        return {"tokens": words, "tags": [table_files.name_of_label(value, names) or None for value in values]}

    strings = datasets.List(datasets.Value("string"))
    features = datasets.Features({"tokens": strings, "tags": strings})  # else ids of a column `tags` stay ids
    sentences = rows.map(as_strings, with_indices=True, remove_columns=rows.column_names, features=features)
    sentences = sentences.filter(lambda row: len(row["tokens"]) > 0)
    if len(sentences) == 0:
        raise InputError(f"{source}: there is no sentence in it")
    return sentences


def split_sentences(text: str) -> list[list[str]]:
    """Split plain text into sentences, by Punkt (Kiss & Strunk 2006, https://aclanthology.org/J06-4003), and words."""
    from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer

    sentences, words = PunktSentenceTokenizer(), NLTKWordTokenizer()
    found = []
    for line in text.splitlines():
        for sentence in sentences.tokenize(line):
            found.append([sentence[start:end] for start, end in words.span_tokenize(sentence)])
    return [tokens for tokens in found if tokens]
