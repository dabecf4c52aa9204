"""What classification of texts, images and recordings shares: one label per example.

Figures: accuracy, F1 of each label and their mean; with the probability of every label also the area under the ROC
curve, for more than two labels the mean of each against all others.
"""

from dataclasses import dataclass, field
from typing import Any

from tasks.task import Prediction, Task
from toolkit.data.sources import Source
from toolkit.metrics.intervals import Bootstrap, bootstrap_auc, bootstrap_mean
from toolkit.metrics.scores import label_scores


@dataclass(frozen=True)
class LabelPrediction(Prediction):
    """A label, its probability and, if they are kept, the probabilities of all labels."""

    label: str
    probability: float
    probabilities: dict[str, float] | None = None
    threshold: float | None = field(default=None, compare=False)  # of the second label, by which it was decided

    def as_json(self) -> dict[str, Any]:
        if self.probabilities is None:
            return {"predicted": self.label, "probability": round(self.probability, 4)}
        rounded = {name: round(value, 8) for name, value in self.probabilities.items()}
        return {"predicted": self.label, "probabilities": rounded}

    def as_text(self, title: str) -> str:
        return f"{self.label}\t{self.probability:.4f}\t{title}"

    def cells(self) -> list[str]:
        return [self.label]


class Classification(Task):
    """One label per example, of whatever modality."""

    reference_column = "label"

    def open(self, source: str, columns: Any) -> Source:
        return self.modality.open_labelled(source, columns, columns.label_column)

    def labels(self, rows) -> set[str]:
        return set(rows["label"])

    def read_prediction(self, line: dict[str, Any]) -> LabelPrediction:
        label, probabilities = line["predicted"], line.get("probabilities")
        return LabelPrediction(label, probabilities[label] if probabilities else line["probability"], probabilities)

    def figures(self, rows, predictions: list[Any], seen: set[str] | None = None) -> dict[str, Bootstrap]:
        references = rows["label"][:]
        return label_scores([each.label for each in predictions], references) | _auc(references, predictions)

    def confusion(self, rows, predictions: list[Any]) -> tuple[list[str], list[str]]:
        return rows["label"][:], [prediction.label for prediction in predictions]


def _auc(references: list[str], predictions: list[Any]) -> dict[str, Bootstrap]:
    """`roc_auc` of the labels that some examples have and others do not; of two labels, only of the second."""
    names = list(predictions[0].probabilities or ())
    areas = [
        bootstrap_auc([each.probabilities[name] for each in predictions], [label == name for label in references])
        for name in (names[1:] if len(names) == 2 else names)
        if 0 < references.count(name) < len(references)
    ]
    return {"roc_auc": bootstrap_mean(areas)} if areas else {}
