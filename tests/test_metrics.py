"""The tagging metric compared with scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from toolkit.metrics.tagging import Tagging


def test_tagging_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    references = [rng.choice(["DET", "NOUN", "VERB"], n).tolist() for n in rng.integers(1, 12, 80)]
    predictions = [[t if rng.random() < 0.7 else "NOUN" for t in tags] for tags in references]
    unseen = [(rng.random(len(tags)) < 0.2).tolist() for tags in references]
    scores = Tagging(keep_in_memory=True).compute(predictions=predictions, references=references, unseen=unseen)
    flat_r, flat_p, flat_u = (np.concatenate(rows) for rows in (references, predictions, unseen))
    assert scores["accuracy"]["value"] == pytest.approx(accuracy_score(flat_r, flat_p))
    assert scores["macro_f1"]["value"] == pytest.approx(f1_score(flat_r, flat_p, average="macro"))
    for tag, f1 in zip(["DET", "NOUN", "VERB"], f1_score(flat_r, flat_p, average=None), strict=True):
        assert scores[f"f1_{tag}"]["value"] == pytest.approx(f1)
    assert scores["accuracy_unseen_words"]["value"] == pytest.approx((flat_r == flat_p)[flat_u].mean())
    for interval in scores.values():
        assert interval["low"] <= interval["value"] <= interval["high"]


def test_no_unseen_accuracy_without_unseen_words():
    scores = Tagging(keep_in_memory=True).compute(predictions=[["A"]], references=[["A"]], unseen=[[False]])
    assert "accuracy_unseen_words" not in scores
