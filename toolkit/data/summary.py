"""What a command says of its data before it begins: a line for each split, and one for what was left out."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

from toolkit.data.splits import DataFiles, split_named

LABELS_SHOWN, PATHS_SHOWN = 12, 3


def say_empty(source: str, num_rows: int, num_empty: int, what: str) -> None:
    """Print on stderr that some rows of a table have no text, or no words, and are left out."""
    if num_empty:
        print(f"left out of {source}, no {what}: {num_empty:,} of {num_rows:,} rows", file=sys.stderr)


class DataSummary:
    """Collects what the splits of a source hold.

    Args:
        source: What the user named.
        found: Its splits, with the files of each.
    """

    def __init__(self, source: str, found: DataFiles):
        self.source, self.found = source, found
        self._splits: dict[str, dict[str, Any]] = {}
        self._is_said = False

    def add(
        self,
        split: str,
        rows: Sized,
        labels: Iterable[Any] | None = None,
        part_of: str | None = None,
        content: str | None = None,
        num_repeated: int = 0,
    ) -> None:
        """Add a split: its rows and their labels, one or a list each.

        `part_of` names the split that they are from, `content` is a hash of them, and `num_repeated` of them are also
        in the split for training.
        """
        summary: dict[str, Any] = {"rows": len(rows)}
        if files := self.found.splits.get(split_named(part_of or split)):
            summary["files"] = len(files)
        if part_of is not None:
            summary["part_of"] = part_of
        if content is not None:
            summary["content"] = content
        if num_repeated:
            summary["also_in_train"] = num_repeated
        if labels is not None:
            lists = (label if isinstance(label, list) else [label] for label in labels)
            counts = Counter(label for of_row in lists for label in of_row if label is not None)
            summary["labels"] = dict(sorted(counts.items(), key=lambda item: -item[1]))
        self._splits[split] = summary

    def as_json(self) -> dict[str, Any]:
        """The field `data` of a record: each split, and how many files were left out, by the reason."""
        left_out = {reason: list(map(str, paths)) for reason, paths in self.found.left_out.items()}
        shown = {reason: {"number": len(paths), "first": paths[:PATHS_SHOWN]} for reason, paths in left_out.items()}
        return {**self._splits, **({"left_out": shown} if shown else {})}

    @property
    def content(self) -> dict[str, str]:
        """The hash of each split."""
        return {split: summary["content"] for split, summary in self._splits.items() if "content" in summary}

    def lines(self) -> list[str]:
        """The lines for people."""
        lines = [f"{split}: {_describe(self.source, summary)}" for split, summary in self._splits.items()]
        with_labels = {split: set(summary["labels"]) for split, summary in self._splits.items() if "labels" in summary}
        for split, labels in with_labels.items() if len(with_labels) > 1 else ():
            if only := labels.difference(*(other for name, other in with_labels.items() if name != split)):
                lines.append(f"labels that only {split} has: {', '.join(sorted(only)[:LABELS_SHOWN])}")
        read = {split_named(summary.get("part_of", split)) for split, summary in self._splits.items()}
        if unread := [split for split in self.found.splits if split not in read]:
            lines.append(f"not read: {', '.join(unread)}")
        for reason, paths in self.found.left_out.items():
            lines.append(f"left out of {self.source}, {reason}: {_shorten(self.source, paths)}")
        return lines

    def say(self) -> bool:
        """Print the lines on stderr, unless they were printed before. Returns whether they are now."""
        is_new, self._is_said = not self._is_said, True
        if is_new:
            print(*self.lines(), sep="\n", file=sys.stderr, flush=True)
        return is_new


def _describe(source: str, summary: dict[str, Any]) -> str:
    text = f"{summary['rows']:,} examples"
    if "part_of" in summary:
        text += f", held out of {summary['part_of']}"
    elif "files" in summary:
        text += f" in {summary['files']:,} files"
    text += f" of {source}"
    if "also_in_train" in summary:
        text += f", {summary['also_in_train']:,} of them also in train"
    if (labels := summary.get("labels")) is not None:
        shown = [f"{label} {count:,}" for label, count in list(labels.items())[:LABELS_SHOWN]]
        text += f"; {len(labels):,} labels: {', '.join(shown)}{', …' if len(labels) > LABELS_SHOWN else ''}"
    return text


def _shorten(source: str, paths: Sequence[Path]) -> str:
    root = Path(source).expanduser()
    first = paths[:PATHS_SHOWN]
    shown = ", ".join(str(path.relative_to(root) if path.is_relative_to(root) else path) for path in first)
    return f"{shown} and {len(paths) - PATHS_SHOWN:,} more" if len(paths) > PATHS_SHOWN else shown
