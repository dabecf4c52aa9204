"""The flags that name columns of labelled data. Imports nothing heavy."""

from dataclasses import dataclass

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
class ImageColumn(Arguments):
    """columns"""

    image_column: str | None = None
    """Column of a table that holds images or their paths (default: the one of images, or image, file_name or path)."""
    skip_broken: bool = False
    """Skip images that cannot be opened, and name them; by default the first one ends the run."""


@dataclass(kw_only=True)
class ChosenLabels(Arguments):
    """data"""

    labels: list[str] | None = None
    """Use the examples of these labels only (default: all)."""
