"""The confusion matrix as a picture: of many labels only some are drawn, and the figures stay right."""

import random

import matplotlib.figure
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix

from toolkit.runs.confusion import MOST_LABELS, write_confusion_matrix


def drawn(monkeypatch) -> dict:
    """What the picture shows: the numbers in its cells by place, the names of its axes, its title."""
    found: dict = {}

    def savefig(figure, *arguments, **options):
        axes = figure.axes[0]
        places = {text: text.get_position() for text in axes.texts}
        found["counts"] = {(int(row), int(column)): int(text.get_text()) for text, (column, row) in places.items()}
        found["labels"] = [text.get_text() for text in axes.get_yticklabels()]
        found["title"] = axes.get_title()
        original(figure, *arguments, **options)

    original = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return found


def test_cells_equal_scikit_learn(tmp_path, monkeypatch):
    rng, found = random.Random(0), drawn(monkeypatch)
    references = rng.choices("abcd", k=200)
    predictions = [label if rng.random() < 0.6 else rng.choice("abcde") for label in references]
    write_confusion_matrix(tmp_path / "x.png", references, predictions)
    expected = confusion_matrix(references, predictions, labels=found["labels"])
    assert found["counts"] == {(i, j): n for i, row in enumerate(expected) for j, n in enumerate(row) if n}
    assert found["title"] == f"accuracy {accuracy_score(references, predictions):.1%} of 200"


def test_of_many_labels_those_with_most_errors_are_drawn(tmp_path, monkeypatch):
    rng, found = random.Random(0), drawn(monkeypatch)
    names = [f"label {number}" for number in range(1300)]
    references = names * 3
    hard = set(rng.sample(names, 20))
    predictions = [rng.choice(sorted(hard)) if label in hard else label for label in references]
    write_confusion_matrix(tmp_path / "x.png", references, predictions)
    assert len(found["labels"]) == MOST_LABELS
    wrong = [pair for pair in zip(references, predictions, strict=True) if len(set(pair)) > 1]
    assert {label for pair in wrong for label in pair} <= set(found["labels"])
    assert found["title"].startswith(f"accuracy {accuracy_score(references, predictions):.1%} of 3,900; the 60 labels")
    assert max(Image.open(tmp_path / "x.png").size) < 5000


@pytest.mark.parametrize("num_labels", [MOST_LABELS, MOST_LABELS + 1])
def test_the_limit(tmp_path, monkeypatch, num_labels):
    found, names = drawn(monkeypatch), [str(number) for number in range(num_labels)]
    write_confusion_matrix(tmp_path / "x.png", names, names)
    assert len(found["labels"]) == MOST_LABELS
    assert ("most errors" in found["title"]) == (num_labels > MOST_LABELS)
