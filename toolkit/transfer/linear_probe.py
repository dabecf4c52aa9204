"""The head of an image classifier, fitted to an encoder that stays as it is by logistic regression.

Alain & Bengio (2016), "Understanding intermediate layers using linear classifier probes",
https://arxiv.org/abs/1610.01644. The encoder runs once over each image.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import nn

from toolkit.errors import extra

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C


def head_of(model) -> nn.Linear:
    """The last layer, from features to logits."""
    if hasattr(model, "timm_model"):
        return model.timm_model.get_classifier()
    return [module for module in model.classifier.modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def normalise_by(model, batches: Iterable[dict[str, Any]]) -> None:
    """Let batch normalisation know the images, as training would: of a network with new weights it knows nothing."""
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
        layer.momentum = None  # the mean over all batches
    for batch in batches if layers else ():
        if len(batch["pixel_values"]) > 1:
            model(pixel_values=send_to_device(batch["pixel_values"], model.device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()


@torch.inference_mode()
def head_inputs(model, batches: Iterable[dict[str, Any]]) -> np.ndarray:
    """What the head reads of each image: (images, features)."""
    seen: list[np.ndarray] = []
    hook = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu().numpy()))
    model.eval()
    try:
        for batch in batches:
            model(pixel_values=send_to_device(batch["pixel_values"], model.device))
    finally:
        hook.remove()
    return np.concatenate(seen)


def fit_head(
    model, inputs: np.ndarray, labels: np.ndarray, held_out_inputs: np.ndarray, held_out_labels: np.ndarray
) -> dict[float, float]:
    """Set the head's weights by the images; the strength is the one with the least loss on held-out images.

    Features are scaled to a deviation of 1 first, which the weights then take over. `labels` are ids, (images,).
    Returns the held-out loss of each strength.
    """
    with extra("images"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import log_loss

        from toolkit.transfer.few_shot_classifier import weights_and_biases

    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    scaled, held_out = (inputs - mean) / deviation, (held_out_inputs - mean) / deviation
    fitted = {c: LogisticRegression(C=c, max_iter=1000).fit(scaled, labels) for c in STRENGTHS}
    known = np.isin(held_out_labels, labels)
    losses = {
        c: float(log_loss(held_out_labels[known], probe.predict_proba(held_out[known]), labels=probe.classes_))
        for c, probe in fitted.items()
    }
    best = fitted[min(losses, key=losses.__getitem__)]
    coefficients, intercepts = weights_and_biases(best)
    coefficients = coefficients / deviation
    head = head_of(model)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1e4)  # a label without an image
        classes = torch.from_numpy(best.classes_)
        head.weight[classes] = torch.from_numpy(coefficients).to(head.weight)
        head.bias[classes] = torch.from_numpy(intercepts - coefficients @ mean).to(head.bias)
    return losses
