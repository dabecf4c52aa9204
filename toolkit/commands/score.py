"""Score a fine-tuned checkpoint on labelled data.

toolkit score runs/tagger --data sample
toolkit score runs/tagger --data UD_English-EWT/ --split validation --output_file scores.json
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.flags import parse_flags
from toolkit.results import is_main_process


@dataclass
class ScoreArguments:
    folder: str
    """Folder or Hub id of a fine-tuned checkpoint."""
    data: str
    """Labelled data: a file, a folder with one file a split, a Hub id, or 'sample'."""
    split: str | None = None
    """Split of a folder or Hub data set (default: test)."""
    output_file: str | None = None
    """Where to write the record (default: score.json in the checkpoint's folder)."""
    tag_column: str | None = None
    """Column of the tags (default: upos)."""
    token_column: str | None = None
    """Column of a table that holds the words (default: tokens or words)."""


def parse(arguments: list[str]) -> ScoreArguments:
    return parse_flags(arguments, ScoreArguments, "toolkit score", __doc__, positionals=["folder"])


def run(arguments: ScoreArguments) -> None:
    from tasks import score, task_of

    columns = {"tag_column": arguments.tag_column, "token_column": arguments.token_column}
    folder = arguments.folder
    output_file = Path(arguments.output_file or (Path(folder) if Path(folder).is_dir() else Path()) / "score.json")
    show(score(task_of(folder), folder, arguments.data, arguments.split, columns, output_file))


def show(record: dict[str, Any]) -> None:
    """Print the figures of a record, one a line, on the main process."""
    if not is_main_process():
        return
    print(f"{record['task']} on {record['dataset']} ({record['split']}, {record['n']:,} examples), 95% intervals:")
    for name, figure in record["metrics"].items():
        print(f"  {name:<24}{figure['value']:.4f}  [{figure['low']:.4f}, {figure['high']:.4f}]")
