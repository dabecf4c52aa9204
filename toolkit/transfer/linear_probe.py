"""Linear probes: logistic regression on the features of an encoder that is not trained.

Alain & Bengio (2016), "Understanding intermediate layers using linear classifier probes",
https://arxiv.org/abs/1610.01644.

Shape legend: N items, D features, C classes.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from torch import nn

DEFAULT_C = 10.0  # of unit-length features, such as centered embeddings or TF-IDF
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # values of C to choose from with held-out data
CERTAIN = 20.0  # logit of a label that all training items have


def fit_linear_probe(
    features: Any, labels: Any, C: float | Sequence[float] = DEFAULT_C, held_out: tuple[Any, Any] | None = None
) -> Any:
    """Fit a `LogisticRegression`, or a `OneVsRestClassifier` of them if an item may have several labels.

    Args:
        features: (N, D), an array or a sparse matrix.
        labels: (N,), or (N, C) zeros and ones if an item may have several.
        C: Inverse regularization strength. Of several values the one with the lowest loss on `held_out` is kept.
        held_out: Held-out features and labels (N,); labels that the training data lacks are ignored.
    """
    if isinstance(C, Sequence):
        assert held_out is not None
        others, answers = held_out
        known = np.isin(answers, labels)
        probes = [fit_linear_probe(features, labels, strength) for strength in C]
        return min(probes, key=lambda p: log_loss(answers[known], p.predict_proba(others[known]), labels=p.classes_))
    probe = LogisticRegression(C=C, max_iter=1000)
    if np.ndim(labels) == 1:
        return probe.fit(features, labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        return OneVsRestClassifier(probe).fit(features, labels)


def linear_layer(probe: Any) -> tuple[np.ndarray, np.ndarray]:
    """The weights (C, D) and biases (C,) of a probe, as those of a linear layer."""
    if isinstance(probe, OneVsRestClassifier):
        num_labels = len(probe.estimators_)
        weights, biases = np.zeros((num_labels, probe.n_features_in_)), np.zeros(num_labels)
        for label, estimator in enumerate(probe.estimators_):
            if hasattr(estimator, "coef_"):
                weights[label], biases[label] = estimator.coef_[0], estimator.intercept_[0]
            else:  # all training items have the label, or none has it
                biases[label] = CERTAIN if estimator.predict(weights[[label]])[0] else -CERTAIN
        return weights, biases
    if len(probe.classes_) > 2:
        return probe.coef_, probe.intercept_
    # Of two classes scikit-learn keeps the log-odds of the second.
    return np.concatenate([-probe.coef_, probe.coef_]) / 2, np.concatenate([-probe.intercept_, probe.intercept_]) / 2


# The head of a classifier of images or recordings


def head_of(model) -> nn.Linear:
    """The last layer, from features to logits."""
    if hasattr(model, "timm_model"):
        return model.timm_model.get_classifier()
    return [module for module in model.classifier.modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def estimate_batch_norm(model, batches: Iterable[dict[str, Any]]) -> None:
    """Set the running statistics of batch normalization to the means over all batches.

    A network with random weights has none that fit the images, and a frozen one gets none in training.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
        layer.momentum = None  # cumulative average
    for batch in batches if layers else ():
        if len(batch[model.main_input_name]) > 1:
            _forward(model, batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


def _forward(model, batch: dict[str, Any]) -> None:
    inputs = {name: batch[name] for name in batch if name not in ("labels", "num_targets", "num_items")}
    model(**send_to_device(inputs, model.device))


@torch.inference_mode()
def head_inputs(model, batches: Iterable[dict[str, Any]]) -> np.ndarray:
    """The inputs of the head (N, D), from one pass of the encoder over the examples."""
    seen: list[np.ndarray] = []
    hook = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu().numpy()))
    model.eval()
    try:
        for batch in batches:
            _forward(model, batch)
    finally:
        hook.remove()
    return np.concatenate(seen)


def fit_head(
    model, features: np.ndarray, labels: np.ndarray, held_out_features: np.ndarray, held_out_labels: np.ndarray
) -> LogisticRegression:
    """Set the head of a classifier to a linear probe of standardized features, which is returned.

    `features` (N, D) are the inputs of the head, `labels` (N,) the ids of labels. The regularization strength is
    chosen among `STRENGTHS` on the held-out ones.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    held_out = (held_out_features - mean) / deviation, held_out_labels
    probe = fit_linear_probe((features - mean) / deviation, labels, STRENGTHS, held_out)
    weights, biases = linear_layer(probe)
    weights = weights / deviation
    head = head_of(model)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1e4)  # logit of a label without a training example
        classes = torch.from_numpy(probe.classes_)
        head.weight[classes] = torch.from_numpy(weights).to(head.weight)
        head.bias[classes] = torch.from_numpy(biases - weights @ mean).to(head.bias)
    return probe
