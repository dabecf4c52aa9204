"""Predict with a fine-tuned checkpoint: tags of words, labels of texts, images or recordings, targets of sources, each
with its probability.

toolkit predict runs/tagger 'The old man the boats.'
toolkit predict runs/tagger < sentences.txt > tagged.tsv
toolkit predict runs/tagger test.conllu --output_format jsonl
toolkit predict runs/x_rays new_scans/ scan.png
toolkit predict runs/commands meeting.wav --window_seconds 1 --hop_seconds 0.5
toolkit predict runs/reviews 'a gem of a film' new_reviews.csv
toolkit predict runs/numbers '<ordinal>121' --num_return_sequences 3
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tasks.task import SearchArguments
from toolkit.cli.flags import parse_flags
from toolkit.data.files import describe_bad_utf8
from toolkit.data.sources import find_inputs
from toolkit.errors import InputError, check_positive
from toolkit.runs.arguments import Arguments, defaults


@dataclass(kw_only=True)
class PredictedInputs(Arguments):
    """input and output"""

    folder: str
    """Folder or Hub id of a fine-tuned checkpoint."""
    inputs: list[str] = field(default_factory=list)
    """Texts, or files of text or of the task's data, for images and recordings also folders; without any, text from
    standard input, one sentence per line."""
    output_format: Literal["tsv", "jsonl"] = "tsv"
    """tsv: word, tag and probability, with a blank line between sentences, or label or target, probability and text or
    file; jsonl: one sentence, text or file per line."""
    skip_broken: bool = False
    """Skip files, rows and symbols that cannot be read, and name them; by default the first one ends the command."""


@dataclass(kw_only=True)
class PredictSearch(SearchArguments):
    num_return_sequences: int | None = None
    """Show this many of the best answers, at most one for each beam (default: the best one in tsv, all in jsonl)."""

    def check(self) -> None:
        check_positive(self, "num_return_sequences")


@dataclass(kw_only=True)
class WindowArguments(Arguments):
    """windows of recordings"""

    window_seconds: float | None = None
    """Predict for windows of this length instead of whole recordings, and print the start and the end of each."""
    hop_seconds: float | None = None
    """Time between the starts of windows (default: as long as a window)."""

    def check(self) -> None:
        check_positive(self, "window_seconds hop_seconds")
        if self.hop_seconds is not None and self.window_seconds is None:
            raise InputError(f"--hop_seconds {self.hop_seconds}: goes with --window_seconds")


@dataclass(kw_only=True)
class PredictArguments(Arguments):
    files: PredictedInputs
    windows: WindowArguments = defaults(WindowArguments)
    search: PredictSearch = defaults(PredictSearch)


def parse(words: Sequence[str]) -> PredictArguments:
    return parse_flags(words, PredictArguments, "toolkit predict", __doc__, positionals=["folder", "inputs"])


def run(arguments: PredictArguments) -> None:
    from tasks import task_of
    from tasks.inference import Predictor, prediction_line

    files, search = arguments.files, arguments.search
    task = task_of(files.folder)
    inputs = read_inputs(files.inputs)
    predictor = Predictor(task, files.folder, search)
    rows = predictor.read(inputs, files.skip_broken)
    if (seconds := arguments.windows.window_seconds) is not None:
        rows = task.modality.cut(rows, seconds, arguments.windows.hop_seconds or seconds)
    is_json = files.output_format == "jsonl"
    for row, prediction in zip(rows, predictor(rows), strict=True):
        shown = prediction.best(search.num_return_sequences or (None if is_json else 1))
        if is_json:
            print(json.dumps(prediction_line(task, row, shown), ensure_ascii=False))
        else:
            print(shown.as_text(task.title(row)))


def read_inputs(words: Sequence[str]) -> list[str | Path]:
    """The inputs that were named, or else lines of standard input, unless that is a terminal. Raises `InputError`."""
    if not words and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError("nothing to label: give texts, files, or text on standard input")
    return find_inputs(words) or [line for line in _lines_of_stdin() if line.strip()]


def _lines_of_stdin() -> Iterator[str]:
    """The lines of standard input, in UTF-8 whatever the locale. Raises `InputError`, which names a bad line."""
    for number, line in enumerate(getattr(sys.stdin, "buffer", sys.stdin), start=1):
        if isinstance(line, bytes):
            try:
                line = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"standard input: line {number} {describe_bad_utf8(error)}") from None
        yield line.rstrip("\r\n")
