"""Metrics of `evaluate` that need no network; each figure comes with its 95% interval."""

from collections.abc import Sequence

import datasets
import evaluate

from toolkit.intervals import Interval, mean_ratio_interval, ratio_interval


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

    def _compute(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[Sequence[str]],
        unseen: Sequence[Sequence[bool]] | None = None,
    ) -> dict[str, Interval]:
        sentences = list(zip(predictions, references, strict=True))
        correct = [[p == r for p, r in zip(*sentence, strict=True)] for sentence in sentences]
        scores = {"accuracy": ratio_interval([sum(words) for words in correct], [len(words) for words in correct])}
        if unseen is not None and any(map(any, unseen)):
            hits = [sum(c and u for c, u in zip(*words, strict=True)) for words in zip(correct, unseen, strict=True)]
            scores["accuracy_unseen_words"] = ratio_interval(hits, [sum(words) for words in unseen])
        # F1 is twice the hits over the number of times that the tag is predicted plus that it is right.
        f1 = {
            tag: (
                [2 * sum(p == r == tag for p, r in zip(*sentence, strict=True)) for sentence in sentences],
                [predicted.count(tag) + right.count(tag) for predicted, right in sentences],
            )
            for tag in sorted({tag for right in references for tag in right})
        }
        scores["macro_f1"] = mean_ratio_interval(list(f1.values()))
        scores |= {f"f1_{tag}": ratio_interval(*counts) for tag, counts in f1.items()}
        return scores
