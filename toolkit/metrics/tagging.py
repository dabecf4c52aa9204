"""A metric for the `evaluate` library that needs no network. Commands do without: its import takes seconds."""

import datasets
import evaluate

from toolkit.metrics.intervals import Interval
from toolkit.metrics.scores import Tags, tagging_scores


class Tagging(evaluate.Metric):
    """Accuracy, F1 of each tag and their mean, and accuracy on words that do not occur in the training data.

    >>> scores = Tagging().compute(predictions=[["DET", "NOUN"]], references=[["DET", "VERB"]])
    >>> scores["accuracy"]["value"]
    0.5
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description="predictions and references: one list of tags a sentence; "
            "unseen: for each word whether it does not occur in the training data.",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: Tags, references: Tags, unseen=None) -> dict[str, Interval]:
        figures = tagging_scores(predictions, references, unseen)
        return {name: figure.interval() for name, figure in figures.items()}
