"""The flags that name columns of labelled data. Imports nothing heavy."""

from dataclasses import dataclass

from toolkit.errors import InputError
from toolkit.runs.arguments import Arguments


@dataclass(kw_only=True)
class LabelColumn(Arguments):
    """columns"""

    label_column: str | None = None
    """Column of a table that holds the label (default: label, labels, category or class)."""


@dataclass(kw_only=True)
class TextColumn(Arguments):
    """columns"""

    text_column: str | None = None
    """Column of a table that holds the text (default: text, sentence, content or document)."""


@dataclass(kw_only=True)
class TreebankColumns(Arguments):
    """columns"""

    tag_column: str | None = None
    """Column of the tags: upos, xpos, or a key of FEATS or MISC such as Number (default: upos)."""
    token_column: str | None = None
    """Column of a table that holds the words (default: tokens or words)."""


@dataclass(kw_only=True)
class SkipBroken(Arguments):
    """columns"""

    skip_broken: bool = False
    """Skip files that cannot be opened, and name them; by default the first one ends the run."""


@dataclass(kw_only=True)
class ImageColumn(SkipBroken):
    """columns"""

    image_column: str | None = None
    """Column of a table that holds images or their paths (default: the one of images, or image, file_name or path)."""


@dataclass(kw_only=True)
class AudioColumn(SkipBroken):
    """columns"""

    audio_column: str | None = None
    """Column of a table that holds recordings or their paths (default: the one of recordings, or audio, file_name or
    path)."""


@dataclass(kw_only=True)
class GroupColumn(Arguments):
    """data"""

    group_column: str | None = None
    """Column of a table, such as the speaker or the patient, whose values are kept apart: none is in two splits."""
    test_groups: list[str] | None = None
    """Values of --group_column to test on, in whatever split of the source they are."""

    def check(self) -> None:
        if self.test_groups is not None and self.group_column is None:
            raise InputError(f"--test_groups {' '.join(self.test_groups)}: goes with --group_column")


@dataclass(kw_only=True)
class ChosenLabels(Arguments):
    """data"""

    labels: list[str] | None = None
    """Use the examples of these labels only (default: all)."""
