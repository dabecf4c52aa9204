"""What classification of texts and of images share: one label per example.

Figures: accuracy, F1 of each label and their mean; with the probability of every label also the area under the ROC
curve, for more than two labels the mean of each against all others.
"""

from dataclasses import dataclass
from typing import Any

from tasks.task import Prediction, Task
from toolkit.data.columns import ImageColumn, LabelColumn, TextColumn
from toolkit.metrics.intervals import Bootstrap, bootstrap_auc, bootstrap_mean
from toolkit.metrics.scores import label_scores


@dataclass(kw_only=True)
class LabelledTextColumns(LabelColumn, TextColumn):
    """Columns of labelled texts."""


@dataclass(kw_only=True)
class LabelledImageColumns(LabelColumn, ImageColumn):
    """Columns of labelled images."""


@dataclass(frozen=True)
class LabelPrediction(Prediction):
    """A label and its probability."""

    label: str
    probability: float

    def as_json(self) -> dict[str, Any]:
        return {"predicted": self.label, "probability": round(self.probability, 4)}

    def as_text(self, title: str) -> str:
        return f"{self.label}\t{self.probability:.4f}\t{title}"

    def cells(self) -> list[str]:
        return [self.label]


@dataclass(frozen=True)
class DistributionPrediction(Prediction):
    """A label and the probability of every label."""

    label: str
    probabilities: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        rounded = {name: round(value, 8) for name, value in self.probabilities.items()}
        return {"predicted": self.label, "probabilities": rounded}

    def as_text(self, title: str) -> str:
        return f"{self.label}\t{self.probabilities[self.label]:.4f}\t{title}"

    def cells(self) -> list[str]:
        return [self.label]


class Classification(Task):
    """One label per example, of whatever modality."""

    reference_column = "label"

    def load(self, source: str, split: str | None, columns: Any):
        return self.modality.load_labelled(source, split, columns, columns.label_column)

    def splits(self, source: str) -> list[str]:
        return self.modality.splits(source)

    def read_inputs(self, inputs):
        return self.modality.read_inputs(inputs)

    def labels(self, rows) -> list[str]:
        return sorted(set(rows["label"]))

    def label_of_each(self, rows) -> list[str]:
        return rows["label"][:]

    def read_prediction(self, line: dict[str, Any]) -> Prediction:
        if "probabilities" in line:
            return DistributionPrediction(line["predicted"], line["probabilities"])
        return LabelPrediction(line["predicted"], line["probability"])

    def figures(self, rows, predictions: list[Any], seen: set[str] | None = None) -> dict[str, Bootstrap]:
        references = rows["label"][:]
        return label_scores([each.label for each in predictions], references) | _auc(references, predictions)

    def confusion(self, rows, predictions: list[Any]) -> tuple[list[str], list[str]]:
        return rows["label"][:], [prediction.label for prediction in predictions]


def _auc(references: list[str], predictions: list[Any]) -> dict[str, Bootstrap]:
    """`roc_auc`, of the labels that some examples have and others do not, of two labels the second one only."""
    if not isinstance(predictions[0], DistributionPrediction):
        return {}
    names = list(predictions[0].probabilities)
    present = [
        name for name in (names[1:] if len(names) == 2 else names) if 0 < references.count(name) < len(references)
    ]
    areas = [
        bootstrap_auc([each.probabilities[name] for each in predictions], [label == name for label in references])
        for name in present
    ]
    return {"roc_auc": bootstrap_mean(areas)} if areas else {}
