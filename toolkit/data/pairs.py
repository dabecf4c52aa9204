"""Pairs of a source and its right answers: one row per source, `source` and `targets`.

An example: source "<N><GEN><SG>talo", targets ["talon"]. Symbols in angle brackets at the start of a source are tags.
"""

import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.data import sources, table_files
from toolkit.data.splits import SPLIT_NAMES, DataFiles
from toolkit.data.summary import say_empty
from toolkit.errors import InputError
from toolkit.runs.arguments import Arguments

USUAL_SOURCE_COLUMNS = ("source", "src", "input", "lemma", "word")
USUAL_TARGET_COLUMNS = ("target", "targets", "tgt", "output", "form", "phonemes")
SAMPLE_SIZES = {"train": 3000, "validation": 300, "test": 300}


@dataclass(kw_only=True)
class PairColumns(Arguments):
    """columns"""

    source_column: str | None = None
    """Column of the sources (default: source, src, input, lemma or word)."""
    target_column: str | None = None
    """Column of the targets: one text, or a list of texts that are all right (default: target, targets, tgt, output,
    form or phonemes). Rows with the same source are different right answers too."""
    feature_columns: list[str] | None = None
    """Columns whose values, separated by ';' or spaces, are put before the source as tags: N;GEN becomes <N><GEN>."""
    where: list[str] | None = None
    """Use the rows with these values only, each given as COLUMN=VALUE."""
    remove: str | None = None
    """Remove from targets what this regular expression matches, such as '[012]' for the stress of phonemes."""

    def check(self) -> None:
        if wrong := [condition for condition in self.where or () if "=" not in condition]:
            raise InputError(f"--where {wrong[0]}: expected COLUMN=VALUE")
        try:
            re.compile(self.remove or "")
        except re.error as error:
            raise InputError(f"--remove {self.remove}: not a regular expression ({error})") from None


def open_pairs(source: str, columns: PairColumns) -> sources.Source:
    """Open pairs: a file, folder or glob of tables, a Hub id, or `sample` (numbers and how they are spelled).

    Raises `InputError` if the source is missing or malformed, or a row has no source or no target.
    """
    import datasets

    kinds = set(table_files.TABLE_BUILDERS)
    if source == sources.SAMPLE:
        found = DataFiles.named(*SPLIT_NAMES)
        return sources.Source(source, found, lambda split: datasets.Dataset.from_list(_sample(split or "train")))
    found = sources.find_splits(source, kinds)

    def load(split: str | None):
        rows = table_files.load_table(source, sources.files_to_load(source, found, kinds, split), split)
        answers: dict[str, dict[str, None]] = {}
        for text, targets in _pairs(source, rows, columns):
            answers.setdefault(text, {}).update(dict.fromkeys(targets))
        return datasets.Dataset.from_dict({"source": list(answers), "targets": list(map(list, answers.values()))})

    return sources.Source(source, found, load)


def read_sources(source: str, columns: PairColumns) -> list[str]:
    """The sources of a table without splits, with their tags; targets are not needed.

    Prints on stderr how many rows have no source. Raises `InputError`.
    """
    rows = table_files.load_table(source, sources.find_files(source, set(table_files.TABLE_BUILDERS), None), None)
    name = _source_column(source, rows, columns)
    filled = [i for i, text in enumerate(rows[name]) if text is not None and str(text).strip()]
    say_empty(source, len(rows), len(rows) - len(filled), name)
    return _sources(source, rows.select(filled), columns)


def _pairs(source: str, rows, columns: PairColumns) -> Iterator[tuple[str, list[str]]]:
    rows = _selected(source, rows, columns.where or ())
    texts = _sources(source, rows, columns)
    name = table_files.choose_column(
        source, rows.column_names, "target_column", columns.target_column, USUAL_TARGET_COLUMNS
    )
    values = table_files.full_column(source, rows, name)
    for number, (text, value) in enumerate(zip(texts, values, strict=True), start=1):
        given = value if isinstance(value, list) else [value]
        if not all(isinstance(target, str) for target in given):
            raise InputError(f"{source}: row {number} has {value!r} in '{name}', expected a text or a list of texts")
        targets = [clean(re.sub(columns.remove, "", target) if columns.remove else target) for target in given]
        if not all(targets) or not targets:
            raise InputError(f"{source}: row {number} has an empty target")
        yield text, targets


def _sources(source: str, rows, columns: PairColumns) -> list[str]:
    name = _source_column(source, rows, columns)
    texts = table_files.full_column(source, rows, name)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise InputError(f"{source}: the column '{name}' holds {wrong[0]!r}, expected texts")
    tags = [""] * len(texts)
    for feature in columns.feature_columns or ():
        if feature not in rows.column_names:
            found = ", ".join(rows.column_names)
            raise InputError(f"--feature_columns {feature}: no such column in {source}, found {found}")
        values = (re.split(r"[;\s]+", str(value)) if value is not None else () for value in rows[feature])
        tags = [
            before + "".join(f"<{value}>" for value in of_row if value)
            for before, of_row in zip(tags, values, strict=True)
        ]
    return [before + clean(text) for before, text in zip(tags, texts, strict=True)]


def _source_column(source: str, rows, columns: PairColumns) -> str:
    given, names = columns.source_column, rows.column_names
    return table_files.choose_column(source, names, "source_column", given, USUAL_SOURCE_COLUMNS)


def _selected(source: str, rows, conditions) -> Any:
    for condition in conditions:
        column, _, wanted = condition.partition("=")
        if column not in rows.column_names:
            raise InputError(f"--where {condition}: no such column in {source}, found {', '.join(rows.column_names)}")
        rows = rows.select([i for i, value in enumerate(rows[column]) if str(value) == wanted])
        if len(rows) == 0:
            raise InputError(f"--where {condition}: no row of {source} has this value")
    return rows


def clean(text: str) -> str:
    """A text in the normal form NFC, with single spaces between words and none around them."""
    return " ".join(unicodedata.normalize("NFC", text).split())


_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
_ONES += "seventeen eighteen nineteen".split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_ORDINALS |= {"twelve": "twelfth"}


def _sample(split: str) -> list[dict[str, Any]]:
    """Numbers of up to six digits with the tag `<cardinal>` or `<ordinal>`, and how they are spelled in English."""
    rng = random.Random(0)
    drawn = sorted({(int(10 ** rng.uniform(0, 6)), rng.choice(["cardinal", "ordinal"])) for _ in range(6000)})
    rng.shuffle(drawn)
    first = 0
    for name, size in SAMPLE_SIZES.items():
        if name == split:
            return [_sample_row(*pair) for pair in drawn[first : first + size]]
        first += size
    raise InputError(f"sample: no split '{split}' in it, found {', '.join(SAMPLE_SIZES)}")


def _sample_row(number: int, kind: str) -> dict[str, Any]:
    spelled = dict.fromkeys([" ".join(_spell(number, link)) for link in ([], ["and"])])
    targets = [_ordinal(text) for text in spelled] if kind == "ordinal" else list(spelled)
    return {"source": f"<{kind}>{number}", "targets": targets}


def _spell(number: int, link: list[str]) -> list[str]:
    """A number below a million as words, with `link` between hundreds and what is below."""
    if number >= 1000:
        rest = number % 1000
        between = link if 0 < rest < 100 else []
        return [*_spell(number // 1000, link), "thousand", *between, *(_spell(rest, link) if rest else [])]
    if number >= 100:
        rest = number % 100
        return [_ONES[number // 100], "hundred", *([*link, *_spell(rest, link)] if rest else [])]
    if number < 20:
        return [_ONES[number]]
    return [_TENS[number // 10], *([_ONES[number % 10]] if number % 10 else [])]


def _ordinal(text: str) -> str:
    before, _, last = text.rpartition(" ")
    last = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return f"{before} {last}".strip()
