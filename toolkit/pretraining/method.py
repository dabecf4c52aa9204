"""What a method of pretraining is: its flags, and one function from the corpus to the record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolkit.runs.arguments import Arguments


@dataclass(frozen=True)
class Method:
    """A method of pretraining, as `toolkit pretrain NAME` offers it.

    Attributes:
        arguments: Data class of its flags, with the groups `output`, `encoder` and `hub`.
        run: Pretrains an encoder; called with an instance of `arguments`, returns the record.
        recipe: How `toolkit prepare NAME` makes windows of text, for a method with the group `windows`; called with
            the run and the text to train on, returns the tokenizers and the recipe.
    """

    arguments: type[Arguments]
    run: Callable[[Any], dict[str, Any]]
    recipe: Callable[[Any, Any], tuple[list[Any], Any]] | None = None


@dataclass(kw_only=True)
class PresetArguments(Arguments):
    """encoder"""

    preset: str
    """Preset, the size of the encoder."""
