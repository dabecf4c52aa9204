"""What the heads of several encoders share, and models around an encoder.

The learned average of layers is equation 1 of Peters et al. (2018), https://arxiv.org/abs/1802.05365; mean and maximum
side by side are of Howard & Ruder (2018), https://arxiv.org/abs/1801.06146.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention
from transformers.utils import ModelOutput


class ScalarMix(nn.Module):
    """A learned average of the layers, times a learned scale."""

    def __init__(self, num_layers: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_layers))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = self.weights.softmax(dim=0)
        return self.scale * sum(weight * layer for weight, layer in zip(weights, layers, strict=True))


def mean_and_maximum(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`states` (B, N, H), `mask` (B, N) -> (B, 2H): over the N that `mask` does not leave out, at least one."""
    inside = mask.bool().unsqueeze(-1)
    mean = (states * inside).sum(dim=1) / inside.sum(dim=1)
    maximum = states.masked_fill(~inside, float("-inf")).amax(dim=1)
    return torch.cat([mean, maximum], dim=-1)


def pooled(output: ModelOutput) -> torch.Tensor:
    """(B, H) of what an encoder of images gives: the mean over the patches of a transformer, whose pooler pretraining
    leaves untrained, or what a convolutional network pools of its maps."""
    if output.last_hidden_state.dim() == 3:
        return output.last_hidden_state.mean(dim=1)
    return output.pooler_output.flatten(1)


def classification_output(
    output_class: type[ModelOutput],
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    hidden_states: tuple[torch.Tensor, ...] | None,
    return_dict: bool | None,
) -> ModelOutput | tuple:
    """What a head returns: `logits` (…, num_labels), with the mean cross-entropy of `labels` (…), -100 aside, if there
    are any; as a tuple where `return_dict` is False."""
    loss = None if labels is None else F.cross_entropy(logits.flatten(0, -2), labels.flatten())
    output = output_class(loss=loss, logits=logits, hidden_states=hidden_states)
    return output if return_dict is not False else output.to_tuple()


def new_encoder(
    config: dict[str, Any], own: Iterable[tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = ()
) -> PreTrainedModel:
    """An encoder with new weights from its configuration as a dictionary: one of `own`, which the Auto classes need
    not know, or of those that they do know. Code that a configuration names is not run."""
    for config_class, model_class in own:
        if config["model_type"] == config_class.model_type:
            return model_class(config_class.from_dict(config))
    known = transformers.AutoConfig.for_model(**config)
    return transformers.AutoModel.from_config(known, trust_remote_code=False)


def take_over(config: PreTrainedConfig, *names: str) -> None:
    """Give a configuration those fields of the one in its `encoder`, such as what a tokenizer has to fit."""
    for name in names:
        if name in (config.encoder or {}):
            setattr(config, name, config.encoder[name])


def under(prefix: str, loading: dict[str, Any]) -> dict[str, Any]:
    """What transformers says of loading an encoder, by the names that its parameters have in a model around it."""
    return {
        "missing_keys": [prefix + key for key in loading["missing_keys"]],
        "mismatched_keys": [(prefix + key, *rest) for key, *rest in loading["mismatched_keys"]],
    }


class ClassifiesImages:
    """What a `PreTrainedModel` of images does that has a `classifier` on what its encoder pools."""

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        **kwargs,
    ) -> ImageClassifierOutputWithNoAttention:
        """`pixel_values` (B, C, S, S), `labels` (B,) -> `logits` (B, num_labels), and `loss` with labels."""
        outputs = self.base_model(pixel_values, output_hidden_states)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=outputs.hidden_states)
