"""Score a fine-tuned checkpoint on labelled data, or an encoder before any task on text or sets of words.

toolkit score runs/tagger --data sample
toolkit score runs/tagger --data UD_English-EWT/ --split validation --output_file scores.json
toolkit score runs/elmo --data text:sample
toolkit score runs/bert --data 'text:texts/*.txt' --max_examples 500
toolkit score runs/word2vec --data wordsim353
toolkit score runs/bert --data analogies --layer 1
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.cli.flags import parse_flags
from toolkit.data.sources import SAMPLE
from toolkit.errors import InputError, check_positive
from toolkit.reports.results import is_main_process


@dataclass
class ScoreArguments:
    folder: str
    """Folder or Hub id of a fine-tuned checkpoint, or of an encoder."""
    data: str
    """Labelled data: a file, a folder with one file a split, a Hub id, or 'sample'. For an encoder: text:SRC, its
    perplexity (ELMo) or pseudo-perplexity (BERT) on text; wordsim353, simlex999 or analogies, its word vectors."""
    split: str | None = None
    """Split of a folder or Hub data set (default: test; of text: validation)."""
    output_file: str | None = None
    """Where to write the record (default: score.json in the checkpoint's folder)."""
    tag_column: str | None = None
    """Column of the tags (default: upos)."""
    token_column: str | None = None
    """Column of a table that holds the words (default: tokens or words)."""
    text_column: str | None = None
    """Column of a table that holds the text (default: text, sentence, content or document)."""
    label_column: str | None = None
    """Column of a table that holds the label (default: label, labels, category or class)."""
    image_column: str | None = None
    """Column of a table that holds images or their paths (default: the one of images, or image, file_name or path)."""
    labels: list[str] | None = None
    """Take the images of these labels only (default: of all)."""
    skip_broken: bool = False
    """Leave out images that cannot be opened, and name them."""
    max_examples: int | None = None
    """With text:SRC, score at most this many lines (BERT) or windows (ELMo), evenly spread: pseudo-perplexity is slow,
    since each token of a line is masked on its own."""
    layer: int | None = None
    """With a set of words, the layer that gives the vectors: 0 the embeddings, -1 the top (default: -1)."""

    def __post_init__(self):
        check_positive(self, "max_examples")


def parse(arguments: list[str]) -> ScoreArguments:
    return parse_flags(arguments, ScoreArguments, "toolkit score", __doc__, positionals=["folder"])


def run(arguments: ScoreArguments) -> None:
    from tasks import score, task_of
    from toolkit.transfer.intrinsic import TEXT, WORD_SETS, score_text, score_words

    folder, data = arguments.folder, arguments.data
    output_file = Path(arguments.output_file or (Path(folder) if Path(folder).is_dir() else Path()) / "score.json")
    if not output_file.parent.is_dir() or not os.access(output_file.parent, os.W_OK):
        raise InputError(f"--output_file {output_file}: {output_file.parent} is no folder that can be written to")
    for flag, fits in (("max_examples", data.startswith(TEXT)), ("layer", data in WORD_SETS)):
        if getattr(arguments, flag) is not None and not fits:
            raise InputError(f"--{flag} {getattr(arguments, flag)}: does not go with --data {data}")
    if data.startswith(TEXT):
        source, split, column = data.removeprefix(TEXT), arguments.split, arguments.text_column
        show(score_text(folder, source, output_file, split, column, arguments.max_examples))
    elif data in WORD_SETS:
        show(score_words(folder, data, output_file, arguments.layer))
    elif data.isalnum() and data != SAMPLE and not Path(data).exists():
        raise InputError(f"--data {data}: no such file or folder, nor {SAMPLE}, {', '.join(WORD_SETS)} or text:SRC")
    else:
        task = task_of(folder)
        flags = {name: getattr(arguments, name) for name in task.data_flags}
        show(score(task, folder, data, arguments.split, flags, output_file))


def show(record: dict[str, Any]) -> None:
    """Print the figures of a record, one a line, on the main process."""
    if not is_main_process():
        return
    print(f"{record['task']} on {record['dataset']} ({record['split']}, {record['n']:,} examples), 95% intervals:")
    for name, figure in record["metrics"].items():
        print(f"  {name:<24}{figure['value']:.4f}  [{figure['low']:.4f}, {figure['high']:.4f}]")
