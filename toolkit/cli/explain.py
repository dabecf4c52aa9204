"""Explain the prediction of a fine-tuned model for an image, a recording or a text: the importance of pixels, sounds
or words, feature maps, attention and hidden states.

toolkit explain runs/animals frog.png --output_dir runs/frog
toolkit explain runs/animals frog.png --output_dir runs/frog --label cat --layers fast_resnet.blocks.0
toolkit explain runs/digits seven.wav --output_dir runs/seven
toolkit explain runs/reviews 'a gem of a film' --output_dir runs/gem
toolkit explain runs/tagger 'The old man the boats.' --output_dir runs/boats
toolkit explain runs/numbers '<ordinal>121' --output_dir runs/121
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.cli.flags import parse_flags
from toolkit.errors import InputError
from toolkit.runs.arguments import Arguments


@dataclass(kw_only=True)
class ExplainArguments(Arguments):
    """flags"""

    folder: str
    """Folder or Hub id of a fine-tuned checkpoint."""
    item: str
    """The image, the recording, the text, or a file with one text."""
    output_dir: str
    """Folder for the pictures and, of a text or a recording, the page explanation.html."""
    label: str | None = None
    """The label to explain, for a tagger at every word (default: the predicted one); not for sequence to sequence."""
    layers: list[str] | None = None
    """Layers of an image classifier whose maps are shown (default: up to four, the last at each resolution)."""


def parse(words: Sequence[str]) -> ExplainArguments:
    return parse_flags(words, ExplainArguments, "toolkit explain", __doc__, positionals=["folder", "item"])


def run(arguments: ExplainArguments) -> None:
    from tasks import task_of

    task, folder = task_of(arguments.folder), Path(arguments.output_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder}: there is a file of that name")
    line, files = task.explain(arguments.folder, arguments.item, arguments.label, arguments.layers, folder)
    print(line)
    print(*files, sep="\n", file=sys.stderr)
