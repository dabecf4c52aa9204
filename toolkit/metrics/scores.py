"""Figures of predicted labels and tags."""

from collections import Counter
from collections.abc import Sequence

from toolkit.metrics.intervals import Bootstrap, bootstrap_mean, bootstrap_ratio

Tags = Sequence[Sequence[str]]  # for each sentence the tags of its words


def label_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, Bootstrap]:
    """`accuracy`, `macro_f1` and `f1_LABEL` of each label, for texts or images with one label each."""
    return tagging_scores([[label] for label in predictions], [[label] for label in references])


def tagging_scores(
    predictions: Tags, references: Tags, unseen: Sequence[Sequence[bool]] | None = None
) -> dict[str, Bootstrap]:
    """`accuracy`, `macro_f1` and `f1_TAG` of each tag, resampled over sentences.

    With `unseen`, which says of each word whether it does not occur in the training data, also
    `accuracy_unseen_words`.
    """
    sentences = list(zip(predictions, references, strict=True))
    correct = [[p == r for p, r in zip(*sentence, strict=True)] for sentence in sentences]
    scores = {"accuracy": bootstrap_ratio([sum(words) for words in correct], [len(words) for words in correct])}
    if unseen is not None and any(map(any, unseen)):
        hits = [sum(c and u for c, u in zip(*words, strict=True)) for words in zip(correct, unseen, strict=True)]
        scores["accuracy_unseen_words"] = bootstrap_ratio(hits, [sum(words) for words in unseen])
    # F1 is twice the true positives over the number of predictions plus the number of references.
    matches = [Counter(p for p, r in zip(*sentence, strict=True) if p == r) for sentence in sentences]
    totals = [Counter([*predicted, *right]) for predicted, right in sentences]
    f1 = {
        tag: bootstrap_ratio([2 * count[tag] for count in matches], [total[tag] for total in totals])
        for tag in sorted({tag for right in references for tag in right})
    }
    scores["macro_f1"] = bootstrap_mean(list(f1.values()))
    scores |= {f"f1_{tag}": figure for tag, figure in f1.items()}
    return scores
