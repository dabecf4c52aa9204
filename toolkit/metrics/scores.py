"""What labels that were predicted are worth; each figure comes with its 95% interval."""

from collections.abc import Sequence

from toolkit.metrics.intervals import Interval, mean_ratio_interval, ratio_interval

Labels = Sequence[Sequence[str]]  # of each sentence those of its words


def label_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, Interval]:
    """The same of texts or images, one label each."""
    return tagging_scores([[label] for label in predictions], [[label] for label in references])


def tagging_scores(
    predictions: Labels, references: Labels, unseen: Sequence[Sequence[bool]] | None = None
) -> dict[str, Interval]:
    """`accuracy`, `macro_f1`, `f1_TAG` of each tag and, with `unseen`, which says for each word whether the training
    data lacks it, `accuracy_unseen_words`."""
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
