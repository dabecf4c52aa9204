"""Layers and functions that the heads of several encoders share, and helpers for models that contain an encoder."""

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
    """A learned weighted average of layers, times a learned scale.

    Equation 1 of Peters et al. (2018), "Deep contextualized word representations", https://arxiv.org/abs/1802.05365.
    """

    def __init__(self, num_layers: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_layers))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = self.weights.softmax(dim=0)
        return self.scale * sum(weight * layer for weight, layer in zip(weights, layers, strict=True))


def mean_and_maximum(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean and the maximum over N positions: `states` (B, N, H), `mask` (B, N) -> (B, 2H).

    Howard & Ruder (2018), "Universal language model fine-tuning for text classification",
    https://arxiv.org/abs/1801.06146. Each row of the mask must keep at least one position.
    """
    inside = mask.bool().unsqueeze(-1)
    mean = (states * inside).sum(dim=1) / inside.sum(dim=1)
    maximum = states.masked_fill(~inside, float("-inf")).amax(dim=1)
    return torch.cat([mean, maximum], dim=-1)


def pool_image_features(output: ModelOutput) -> torch.Tensor:
    """Pool the output of an image encoder to (B, H): the mean over the patches of a transformer, whose pooler is not
    pretrained, or the `pooler_output` of a convolutional network."""
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
    """The output of a head with `logits` (…, num_labels), and with the mean cross-entropy if there are `labels` (…),
    -100 for none; a tuple if `return_dict` is False."""
    loss = None if labels is None else F.cross_entropy(logits.flatten(0, -2), labels.flatten())
    output = output_class(loss=loss, logits=logits, hidden_states=hidden_states)
    return output if return_dict is not False else output.to_tuple()


def encoder_from_config(
    config: dict[str, Any], known: Iterable[tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = ()
) -> PreTrainedModel:
    """Build an encoder with random weights from its configuration as a dictionary.

    Classes in `known` need not be registered with the Auto classes. Code that a configuration refers to is not run.
    """
    for config_class, model_class in known:
        if config["model_type"] == config_class.model_type:
            return model_class(config_class.from_dict(config))
    registered = transformers.AutoConfig.for_model(**config)
    return transformers.AutoModel.from_config(registered, trust_remote_code=False)


def copy_encoder_fields(config: PreTrainedConfig, *names: str) -> None:
    """Copy fields of `config.encoder` that exist to `config`, such as those that a tokenizer has to fit."""
    for name in names:
        if name in (config.encoder or {}):
            setattr(config, name, config.encoder[name])


def with_prefix(prefix: str, loading_info: dict[str, Any]) -> dict[str, Any]:
    """The `loading_info` of an encoder with the parameter names of a model in which its names start with `prefix`."""
    return {
        "missing_keys": [prefix + key for key in loading_info["missing_keys"]],
        "mismatched_keys": [(prefix + key, *rest) for key, *rest in loading_info["mismatched_keys"]],
    }


class TextClassifierMixin:
    """The forward pass of a text classifier, whose `logits` method reads the output of its `base_model`."""

    output_class: type[ModelOutput]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> ModelOutput | tuple:
        """Classify the tokens of `input_ids` (B, T), or texts.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T).
            labels: (B, T), -100 where a token has none, or (B,).
            output_hidden_states: Whether to return the hidden states of all layers.
            return_dict: False for a tuple.

        Returns:
            `logits` (B, T, num_labels) or (B, num_labels), and with labels `loss`, the mean cross-entropy.
        """
        outputs = self.base_model(
            input_ids, attention_mask, output_hidden_states=output_hidden_states, output_pieces=False
        )
        logits = self.logits(outputs)
        return classification_output(self.output_class, logits, labels, outputs.hidden_states, return_dict)


class ImagePreTrainedModel(PreTrainedModel):
    """Base class of models that read images."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)


class ImageClassifierMixin:
    """The forward pass of an image classifier: its `classifier` on the pooled output of its `base_model`."""

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        **kwargs,
    ) -> ImageClassifierOutputWithNoAttention:
        """`pixel_values` (B, C, S, S), `labels` (B,) -> `logits` (B, num_labels), and `loss` with labels."""
        outputs = self.base_model(pixel_values, output_hidden_states=output_hidden_states)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=outputs.hidden_states)
