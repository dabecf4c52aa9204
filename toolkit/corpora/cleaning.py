"""Cleaning of text, with counts of what was changed or left out."""

import unicodedata
from collections import Counter
from dataclasses import dataclass, field

from toolkit.corpora.blocks import Fault, Texts
from toolkit.errors import extra

MOST_FAULTS, NAMED = 100, 10  # how many are kept, and how many of those printed
_MORE = "left out, could not be read either"


@dataclass
class Notes:
    """What was left out of a text: faults, and numbers of rows by reason."""

    faults: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, fault: Fault) -> None:
        """Add a fault, or only count it if there are many."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)
        else:
            self.counts[_MORE] += 1

    def add(self, faults: list, counts: dict[str, int]) -> None:
        """Add the faults and counts of another part of the text."""
        for fault in faults:
            self.note(Fault(*fault))
        self.counts.update(counts)

    def lines(self) -> list[str]:
        """The messages for the user: the first faults, the number of further ones, and the counts."""
        lines = [f"left out {fault}" for fault in self.faults[:NAMED]]
        if more := max(0, len(self.faults) - NAMED) + self.counts[_MORE]:
            lines.append(f"left out {more:,} more")
        return lines + [f"{what}: {count:,} rows" for what, count in sorted(self.counts.items()) if what != _MORE]


@dataclass(frozen=True)
class Cleaning:
    """Repair rows with ftfy, https://ftfy.readthedocs.io, and leave out those with too few words or letters.

    Empty rows stay, since they separate documents. `min_letters` is a fraction of the characters that are not spaces.
    """

    fix_text: bool = False
    min_words: int = 0
    min_letters: float = 0.0

    def __call__(self, texts: Texts, notes: Notes) -> Texts:
        """Clean texts; None for those that are left out, which are counted in `notes`."""
        return [text and self._clean(text, notes.counts) for text in texts]

    def _clean(self, text: str, counts: Counter[str]) -> str | None:
        if self.fix_text:
            with extra("clean"):
                import ftfy

            fixed = ftfy.fix_text(text)
            counts["mended"] += fixed != text
            text = fixed
        words = text.split()
        if words and len(words) < self.min_words:
            counts[f"left out, fewer than {self.min_words} words"] += 1
            return None
        num_characters = sum(map(len, words))
        if self.min_letters and sum(map(_is_letter, text)) < self.min_letters * num_characters:
            counts[f"left out, fewer than {self.min_letters:.0%} letters"] += 1
            return None
        return text


def _is_letter(character: str) -> bool:
    """Letters and marks, which include the vowel signs of Devanagari and Thai."""
    return character.isalpha() or unicodedata.category(character).startswith("M")


NO_CLEANING = Cleaning()
