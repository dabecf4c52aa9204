"""Figures of generated sequences against one or several right answers."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from toolkit.metrics.intervals import Bootstrap, bootstrap_ratio, bootstrap_terms

CHRF_ORDER, CHRF_BETA = 6, 2  # longest character n-grams, and how much recall counts more than precision


def sequence_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], symbols_of: Callable[[str], Sequence[str]]
) -> dict[str, Bootstrap]:
    """Figures of predicted texts, each against all right answers of its source, resampled over sources.

    `exact_match` is the fraction that equals a right answer, and `word_error_rate` one minus it, as defined for
    grapheme-to-phoneme conversion (in speech recognition it is an edit distance in words). `symbol_error_rate` is the
    edit distance (insertions, deletions and substitutions) to the nearest right answer, over the number of its
    symbols: of phonemes the phoneme error rate, of characters the character error rate. `chrf` is the F-score of
    character n-grams of Popović (2015), "chrF: character n-gram F-score for automatic MT evaluation",
    https://aclanthology.org/W15-3049.
    """
    from rapidfuzz.distance import Levenshtein

    wrong, edits, lengths = [], [], []
    for predicted, answers in zip(predictions, references, strict=True):
        found, right = symbols_of(predicted), [symbols_of(answer) for answer in answers]
        distances = [Levenshtein.distance(found, answer) for answer in right]
        nearest = distances.index(min(distances))
        wrong.append(predicted not in answers)
        edits.append(distances[nearest])
        lengths.append(len(right[nearest]))
    ones = np.ones(len(wrong))
    return {
        "exact_match": bootstrap_ratio(ones - wrong, ones),
        "word_error_rate": bootstrap_ratio(wrong, ones),
        "symbol_error_rate": bootstrap_ratio(edits, lengths),
        "chrf": bootstrap_terms([_best_counts(*pair) for pair in zip(predictions, references, strict=True)], _f_score),
    }


def _best_counts(predicted: str, answers: Sequence[str]) -> np.ndarray:
    """`_counts` against the right answer with the highest F-score."""
    of_answers = [_counts(predicted, answer) for answer in answers]
    return max(of_answers, key=lambda counts: float(_f_score(counts[None])[0]))


def _counts(predicted: str, answer: str) -> np.ndarray:
    """The numbers of n-grams of a prediction, of an answer, and in both, for each length: (3 * CHRF_ORDER,)"""
    found, right = ("".join(text.split()) for text in (predicted, answer))
    rows = []
    for order in range(1, CHRF_ORDER + 1):
        of_found, of_right = (
            Counter(text[i : i + order] for i in range(len(text) - order + 1)) for text in (found, right)
        )
        rows.append((of_found.total(), of_right.total(), (of_found & of_right).total()))
    return np.array(rows, dtype=np.float64).T.ravel()


def _f_score(sums: np.ndarray) -> np.ndarray:
    """The F-score of summed counts (N, 3 * CHRF_ORDER) -> (N,), over the lengths that both texts have."""
    found, right, both = np.split(sums, 3, axis=1)  # each (N, CHRF_ORDER)
    counts = (found > 0) & (right > 0)
    num_orders = np.maximum(counts.sum(axis=1), 1)
    precision, recall = ((both / np.maximum(total, 1) * counts).sum(axis=1) / num_orders for total in (found, right))
    weight = CHRF_BETA**2
    return (1 + weight) * precision * recall / np.maximum(weight * precision + recall, 1e-16)
