"""Metrics of `evaluate` that need no network; each figure comes with its 95% interval.

Commands call the functions of `toolkit.metrics.scores` themselves: to import `evaluate` takes seconds.
"""

import datasets
import evaluate

from toolkit.metrics.intervals import Interval
from toolkit.metrics.scores import Tags, tagging_scores


class Tagging(evaluate.Metric):
    """Accuracy, F1 of each tag and their mean, and accuracy on words that the training data lacks.

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
            "unseen: for each word whether the training data lacks it.",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: Tags, references: Tags, unseen=None) -> dict[str, Interval]:
        figures = tagging_scores(predictions, references, unseen)
        return {name: figure.interval() for name, figure in figures.items()}
