"""Linear probes and the logits of few-shot classification, compared with scikit-learn, scipy and by hand."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from toolkit.models.class_logits import center_and_normalize, class_logits
from toolkit.transfer.linear_probe import STRENGTHS, fit_linear_probe, linear_layer


@pytest.fixture(scope="module")
def items():
    """Features (90, 5) and labels of three classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    return rng.normal(size=(90, 5)) + labels[:, None] * [1, 0, 0, 0, -0.5], np.array(["a", "b", "c"])[labels]


@pytest.mark.parametrize("classes", ["ab", "abc"])
@pytest.mark.parametrize("as_given", [np.asarray, csr_matrix])
def test_a_probe_equals_a_linear_layer(items, classes, as_given):
    features, labels = (part[np.isin(items[1], list(classes))] for part in items)
    probe = fit_linear_probe(as_given(features), labels, C=2.0)
    expected = LogisticRegression(C=2.0, max_iter=1000).fit(features, labels)
    np.testing.assert_allclose(probe.predict_proba(features), expected.predict_proba(features), atol=1e-5)
    weights, biases = linear_layer(probe)
    assert weights.shape == (len(classes), 5)
    found = torch.from_numpy(features @ weights.T + biases).softmax(dim=1)
    np.testing.assert_allclose(found, probe.predict_proba(features), atol=1e-9)


def test_regularization_is_chosen_on_held_out_items(items):
    features, labels = items
    held_out = features[60:], np.where(np.arange(30) < 3, "never seen", labels[60:])
    probe = fit_linear_probe(features[:60], labels[:60], STRENGTHS, held_out)
    losses = {}
    for strength in STRENGTHS:
        each = LogisticRegression(C=strength, max_iter=1000).fit(features[:60], labels[:60])
        losses[strength] = log_loss(labels[63:], each.predict_proba(features[63:]), labels=each.classes_)
    assert min(losses, key=losses.__getitem__) == probe.C
    assert STRENGTHS[0] < probe.C < STRENGTHS[-1]


def test_each_of_several_labels_has_its_own_probe(items, recwarn):
    features, labels = items
    targets = np.stack([labels == "a", labels != "c", labels != "", labels == ""], axis=1)
    weights, biases = linear_layer(fit_linear_probe(features, targets, C=2.0))
    for label in (0, 1):
        alone = LogisticRegression(C=2.0, max_iter=1000).fit(features, targets[:, label])
        np.testing.assert_allclose(weights[label], alone.coef_[0], atol=1e-9)
        assert biases[label] == pytest.approx(alone.intercept_[0])
    assert not weights[2:].any()
    assert biases[2:].tolist() == [20, -20]
    assert not recwarn.list


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "sqeuclidean", "linear"])
@pytest.mark.parametrize("classes", [[0, 1, 2], [2, 0, 1, 1, 0, 2, 2]])
def test_the_most_similar_point_of_a_class_gives_its_logit(metric, classes):
    rng = np.random.default_rng(1)
    features, points = rng.normal(size=(20, 4)), rng.normal(size=(len(classes), 4))
    biases = rng.normal(size=len(classes))
    found = class_logits(
        *map(torch.from_numpy, (features, points, np.array(classes))), 3, metric, 5.0, torch.from_numpy(biases)
    )
    similarities = {
        "cosine": lambda: 5 * (1 - cdist(features, points, "cosine")),
        "euclidean": lambda: -cdist(features, points),
        "sqeuclidean": lambda: -cdist(features, points, "sqeuclidean"),
        "linear": lambda: features @ points.T,
    }[metric]() + biases
    expected = [similarities[:, np.array(classes) == label].max(axis=1) for label in range(3)]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-12)


def test_features_are_centered_and_normalized():
    features, mean = torch.tensor([[3.0, 5.0], [1.0, 1.0]]), torch.tensor([0.0, 1.0])
    assert center_and_normalize(features, mean, False).tolist() == [[3.0, 4.0], [1.0, 0.0]]
    assert center_and_normalize(features, mean, True).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [1.0, 0.0],
    ]
