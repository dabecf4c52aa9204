"""What few-shot and zero-shot classification share: flags, labelled examples, descriptions of labels, the record."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from toolkit.data.columns import LabelColumn
from toolkit.data.rows import take_subset
from toolkit.data.sources import Source, find_files
from toolkit.data.splits import split_named
from toolkit.data.table_files import TABLE_BUILDERS, full_column, load_table
from toolkit.errors import InputError, check_not_negative
from toolkit.modalities import MODALITIES, Modality
from toolkit.runs.arguments import Arguments, defaults, to_flags
from toolkit.runs.output import OutputArguments, check_output_dir, create_output_dir
from toolkit.runs.results import PREDICTIONS_FILE, RESULTS_FILE, Stopwatch, write_results

# The flags that name columns, of every modality, also of those that a script has added.
ExampleColumns: Any = dataclasses.make_dataclass(
    "ExampleColumns", (), bases=(LabelColumn, *(each.columns for each in MODALITIES.values())), kw_only=True
)


@dataclass(kw_only=True)
class ExamplesArguments(Arguments):
    """data"""

    encoder: str
    """A checkpoint folder or a Hub id."""
    data: str
    """Labelled data: a file, a folder with one file per split or one folder per class, a Hub id, or 'sample'."""
    split: str | None = None
    """Split of a folder or Hub data set (default: test to evaluate, train to learn from)."""
    unlabelled: str | None = None
    """Unlabelled data, on whose mean features are centered (default: the labelled examples)."""
    modality: str | None = None
    """Modality of the examples: text, image or audio (default: that of the encoder). With audio, an image encoder
    reads the spectrograms of recordings."""
    seed: int = 0
    """Seed of the choice of examples, and of fine-tuning."""

    def check(self) -> None:
        check_not_negative(self, "seed")


@dataclass(kw_only=True)
class OptionalExamples(ExamplesArguments):
    data: str | None = None  # type: ignore[assignment]
    """Labelled data to learn from on the spot; then --encoder is an encoder and no classifier of fewshot fit."""


@dataclass(kw_only=True)
class ExampleClassifierArguments(Arguments):
    """The labelled examples and the classifier, whose group of flags a subclass declares."""

    examples: ExamplesArguments
    classifier: Any
    columns: ExampleColumns = defaults(ExampleColumns)  # type: ignore[valid-type]

    def check(self) -> None:
        if self.classifier.rounds and self.examples.unlabelled is None:
            raise InputError(f"--rounds {self.classifier.rounds}: goes with --unlabelled")


@dataclass(kw_only=True)
class InputArguments(Arguments):
    """input and output"""

    inputs: list[str] = field(default_factory=list)
    """Texts, or files of texts, images or recordings, or folders of them; without any, texts from standard input, one
    a line."""
    output_format: Literal["tsv", "jsonl"] = "tsv"
    """tsv: label, probability and item; jsonl: one item per line, with the probability of every label."""


@dataclass(kw_only=True)
class OptionalOutput(OutputArguments):
    output_dir: str | None = None  # type: ignore[assignment]
    """Folder for results.json and predictions.jsonl (default: results are only printed)."""


@dataclass(frozen=True)
class Examples:
    """Labelled examples: rows of a modality with `label`, and `group` if episodes stay within a group."""

    modality: Modality
    rows: Any
    split: str | None

    @cached_property
    def items(self) -> list[Any]:
        return self.rows[self.modality.name][:]

    @cached_property
    def labels(self) -> list[str]:
        return self.rows["label"][:]

    @property
    def groups(self) -> list[str] | None:
        return self.rows["group"][:] if "group" in self.rows.column_names else None

    def with_labels(self, labels: Iterable[str]) -> "Examples":
        """The examples of these labels."""
        kept = set(labels)
        rows = self.rows.select([i for i, label in enumerate(self.labels) if label in kept])
        return dataclasses.replace(self, rows=rows)

    def with_groups(self, groups: Sequence[str], source: str) -> "Examples":
        """The examples of these groups, or all without any. Raises `InputError` if one is not there."""
        found, kept = self.groups or [], set(groups)
        if unknown := kept - set(found):
            raise InputError(
                f"--groups {min(unknown)}: not in {source}, where there are {', '.join(sorted(set(found)))}"
            )
        if not groups:
            return self
        return dataclasses.replace(self, rows=self.rows.select([i for i, group in enumerate(found) if group in kept]))

    def choose(self, shots: int | None, seed: int) -> "Examples":
        """`shots` examples per label, or all examples. Raises `InputError` if a label has fewer."""
        if shots is None:
            return self
        label, count = min(Counter(self.labels).items(), key=lambda pair: pair[1])
        if count < shots:
            raise InputError(f"--shots {shots}: the label {label} has {count} examples only")
        return dataclasses.replace(self, rows=take_subset(self.rows, shots, seed, self.labels))

    def lines(self, predicted: Sequence[list[str]]) -> list[dict[str, Any]]:
        """Lines of `predictions.jsonl`: each item, its label, and the prediction of each run."""
        return [
            {**self.modality.describe(row), "label": row["label"], "predicted": list(of_item)}
            for row, of_item in zip(self.rows, zip(*predicted, strict=True), strict=True)
        ]


def check_alone() -> None:
    """Raises `InputError` if a launcher has started several processes, which would all do the same."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("few-shot and zero-shot classification run in one process; start them without a launcher")


def open_examples(modality: Modality, source: str, columns: Any, within: str | None = None) -> Source:
    """Open labelled data. Raises `InputError`."""
    return modality.open_labelled(source, columns, columns.label_column, within)


def load_examples(modality: Modality, source: Source, split: str | None, default: str = "train") -> Examples:
    """Labelled examples of a split, or of the default one if the source has it. Raises `InputError`."""
    split = split or (default if default in source.splits else None)
    rows = source.load(split)
    source.summary.add(split or ("train" if source.splits else "all"), rows, rows["label"])
    return Examples(modality, rows, split)


def load_test_and_train(modality: Modality, source: Source, split: str | None) -> tuple[Examples, Examples]:
    """Examples to test on (default: of the split test) and to learn from. Raises `InputError` if they are the same."""
    test = load_examples(modality, source, split, "test")
    if split_named(test.split or "train") == "train":
        raise InputError(f"{source.name}: there are no examples to test on but those to learn from, name a --split")
    return test, load_examples(modality, source, "train")


def load_unlabelled(modality: Modality, source: str | None, columns: Any) -> list[Any] | None:
    """Unlabelled items; None if no source is named."""
    if source is None:
        return None
    opened = modality.open_unlabelled(source, columns)
    rows = opened.load(None)
    opened.summary.add("unlabelled", rows)
    opened.summary.say()
    return rows[modality.name][:]


def describe_labels(names: Sequence[str], table: str | None) -> dict[str, str]:
    """A text for each label: the label itself with underscores read as spaces, or its description in a table.

    Without `names`, all labels of the table. Raises `InputError` if the table lacks a label, or two labels have the
    same description.
    """
    if table is None:
        return {name: name.replace("_", " ") for name in names}
    rows = load_table(table, find_files(table, set(TABLE_BUILDERS), None), None)
    if missing := {"label", "description"} - set(rows.column_names):
        raise InputError(f"{table}: has no column {min(missing)}, but {', '.join(rows.column_names)}")
    labels, texts = (full_column(table, rows, name) for name in ("label", "description"))
    of_label = dict(zip(map(str, labels), texts, strict=True))
    if unknown := [name for name in names if name not in of_label]:
        raise InputError(f"{table}: has no description of the label {unknown[0]}")
    if len(set(of_label.values())) < len(of_label):
        raise InputError(f"{table}: two labels have the same description")
    return {name: of_label[name] for name in names or of_label}


def write_evaluation(
    task: str, arguments: Any, measure: Callable[[Any], tuple[dict[str, Any], list[dict]]]
) -> dict[str, Any]:
    """Evaluate with `measure`, which returns fields of the record and lines of `predictions.jsonl`.

    Both are written to the output folder, if there is one. Returns the record.
    """
    folder, stopwatch = None, Stopwatch()
    if arguments.output.output_dir is not None:
        check_output_dir(arguments.output)
    fields, lines = measure(arguments)
    if arguments.output.output_dir is not None:
        folder = create_output_dir(arguments.output)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / PREDICTIONS_FILE).write_text(text, encoding="utf-8")
    return write_record(task, arguments, stopwatch, folder, **fields)


def write_record(
    task: str, arguments: Any, stopwatch: Stopwatch, folder: Path | None, **fields: Any
) -> dict[str, Any]:
    """The record of a run, written to the output folder, if there is one."""
    flags = to_flags(arguments)
    record = {
        "task": task,
        "dataset": flags["data"],
        "encoder": flags.get("encoder"),
        "seed": flags.get("seed"),
        "num_steps": 0,
        "throughput": fields["n"] / stopwatch.seconds,
        "throughput_unit": "items/s",
        "deterministic": True,
        "arguments": flags,
        **fields,
    }
    return record if folder is None else write_results(folder / RESULTS_FILE, stopwatch, **record)
