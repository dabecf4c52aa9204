"""A task in one file that changes nothing in the toolkit: find the noun phrases of a sentence, scored by span F1.

A phrase is a longest sequence of determiners, adjectives, numbers and nouns that ends with a noun, marked with B and I
as in Ramshaw & Marcus (1995), "Text chunking using transformation-based learning", https://aclanthology.org/W95-0107.
Run this file in place of `toolkit`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks import TASKS
from tasks.pos_tagging import PosArguments, PosTagging
from toolkit.cli.dispatch import entry_point
from toolkit.data.sources import Source
from toolkit.metrics.intervals import Bootstrap, bootstrap_ratio

INSIDE, HEADS = {"DET", "ADJ", "NUM", "NOUN", "PROPN"}, {"NOUN", "PROPN"}


def phrases_of_tags(tags: list[str]) -> list[str]:
    """Part-of-speech tags to one of B, I and O per word.

    >>> phrases_of_tags(["DET", "NOUN", "VERB", "DET", "ADJ"])
    ['B', 'I', 'O', 'O', 'O']
    """
    marks, start = ["O"] * len(tags), 0
    for index, tag in enumerate(tags):
        if tag not in INSIDE:
            start = index + 1
        elif tag in HEADS:
            marks[start : index + 1] = ["B"] + ["I"] * (index - start)
    return marks


def spans(marks: list[str]) -> set[tuple[int, int]]:
    """The phrases as pairs of their first position and the one behind their last; an I without a B begins one."""
    starts = [i for i, mark in enumerate(marks) if mark == "B" or (mark == "I" and (i == 0 or marks[i - 1] == "O"))]
    ends = [next((j for j in range(i + 1, len(marks)) if marks[j] != "I"), len(marks)) for i in starts]
    return set(zip(starts, ends, strict=True))


@dataclass(kw_only=True)
class NounPhraseArguments(PosArguments):
    @property
    def metric(self) -> str:
        return "span_f1"


class NounPhrases(PosTagging):
    name = "noun-phrases"
    arguments = NounPhraseArguments
    baseline_name = "CRF"

    def open(self, source: str, columns: Any) -> Source:
        tagged = super().open(source, columns)

        def load(split: str | None):
            return tagged.load(split).map(lambda tags: {"tags": phrases_of_tags(tags)}, input_columns="tags")

        return Source(source, tagged.found, load)

    def figures(self, rows, predictions: list[Any], seen: Any = None) -> dict[str, Bootstrap]:
        pairs = [(spans(right), spans(found.tags)) for right, found in zip(rows["tags"], predictions, strict=True)]
        hits, num_right, num_found = (
            np.array(counts)
            for counts in zip(*[(len(right & found), len(right), len(found)) for right, found in pairs], strict=True)
        )
        return {
            "span_f1": bootstrap_ratio(2 * hits, num_right + num_found),
            "precision": bootstrap_ratio(hits, num_found),
            "recall": bootstrap_ratio(hits, num_right),
        }

    def confusion(self, rows, predictions: list[Any]) -> None:
        return None


TASKS["noun-phrases"] = NounPhrases()

if __name__ == "__main__":
    entry_point()
