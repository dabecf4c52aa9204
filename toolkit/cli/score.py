"""Score a fine-tuned checkpoint on labelled data, or an encoder before fine-tuning on text or sets of words.

toolkit score runs/tagger --data sample
toolkit score runs/tagger --data UD_English-EWT/ --split validation --output_file scores.json
toolkit score runs/elmo --data text:sample
toolkit score runs/bert --data 'text:texts/*.txt' --max_examples 500
toolkit score runs/word2vec --data wordsim353
toolkit score runs/bert --data analogies --layer 1
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from tasks import TASKS
from tasks.task import SearchArguments
from toolkit.cli.flags import parse_flags
from toolkit.data.sources import SAMPLE
from toolkit.errors import InputError, check_positive
from toolkit.runs.arguments import Arguments, defaults
from toolkit.runs.results import is_main_process

TEXT = "text:"


@dataclass(kw_only=True)
class ScoredData(Arguments):
    """data and output"""

    folder: str
    """Folder or Hub id of a fine-tuned checkpoint, or of an encoder."""
    data: str
    """Labelled data: a file, a folder with one file per split, a Hub id, or 'sample'. For an encoder: text:SRC, its
    perplexity (ELMo, recurrent networks) or pseudo-perplexity (BERT) on text; wordsim353, simlex999 or analogies, its
    word vectors."""
    split: str | None = None
    """Split of a folder or Hub data set (default: test; of text: validation)."""
    output_file: str | None = None
    """Where to write the record (default: score.json in the checkpoint's folder)."""
    max_examples: int | None = None
    """With text:SRC, score at most this many lines (BERT) or windows (the others), evenly spread: pseudo-perplexity is
    slow, because each token of a line is masked on its own."""
    layer: int | None = None
    """With a set of words, the layer that gives the vectors: 0 the embeddings, -1 the top (default: -1)."""

    def check(self) -> None:
        check_positive(self, "max_examples")


# The flags that name columns, of every task, also of those that a script has added.
_COLUMNS = dict.fromkeys(get_type_hints(task.arguments)["columns"] for task in TASKS.values())
AllColumns: Any = make_dataclass("AllColumns", (), bases=tuple(_COLUMNS), kw_only=True)


@dataclass(kw_only=True)
class ScoreArguments(Arguments):
    scored: ScoredData
    search: SearchArguments = defaults(SearchArguments)
    columns: AllColumns = defaults(AllColumns)  # type: ignore[valid-type]


def parse(words: Sequence[str]) -> ScoreArguments:
    return parse_flags(words, ScoreArguments, "toolkit score", __doc__, positionals=["folder"])


def run(arguments: ScoreArguments) -> None:
    from tasks import task_of
    from tasks.inference import score

    flags, columns = arguments.scored, arguments.columns
    folder, data = flags.folder, flags.data
    output_file = Path(flags.output_file or (Path(folder) if Path(folder).is_dir() else Path()) / "score.json")
    if not output_file.parent.is_dir() or not os.access(output_file.parent, os.W_OK):
        raise InputError(f"--output_file {output_file}: {output_file.parent} is no folder that can be written to")
    from toolkit.transfer.word_vectors import WORD_SETS, score_words

    for flag, fits in (("max_examples", data.startswith(TEXT)), ("layer", data in WORD_SETS)):
        if getattr(flags, flag) is not None and not fits:
            raise InputError(f"--{flag} {getattr(flags, flag)}: does not go with --data {data}")
    if data.startswith(TEXT) or data in WORD_SETS:
        for flag, value in arguments.search.given().items():
            raise InputError(f"--{flag} {value}: does not go with --data {data}")
    if data.startswith(TEXT):
        from toolkit.pretraining.perplexity import score_text

        source = data.removeprefix(TEXT)
        show(score_text(folder, source, output_file, flags.split, columns.text_column, flags.max_examples))
    elif data in WORD_SETS:
        show(score_words(folder, data, output_file, flags.layer))
    elif data.isalnum() and data != SAMPLE and not Path(data).exists():
        raise InputError(f"--data {data}: no such file or folder, nor {SAMPLE}, {', '.join(WORD_SETS)} or text:SRC")
    else:
        show(score(task_of(folder), folder, data, flags.split, columns, output_file, arguments.search))


def show(record: dict[str, Any]) -> None:
    """Print the figures of a record, one per line, on the main process."""
    if not is_main_process():
        return
    print(f"{record['task']} on {record['dataset']} ({record['split']}, {record['n']:,} examples), 95% intervals:")
    for name, figure in record["metrics"].items():
        print(f"  {name:<24}{figure['value']:.4f}  [{figure['low']:.4f}, {figure['high']:.4f}]")
