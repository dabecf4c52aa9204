"""Heads that several encoders share, and helpers for models that contain an encoder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
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


def pool_audio_features(
    model: nn.Module, output: ModelOutput, attention_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Pool the output of an encoder of recordings to (B, H). With a mask (B, N) of samples, the mean is over their
    frames alone."""
    if attention_mask is None:
        return pool_image_features(output)
    states = output.last_hidden_state
    mask = model._get_feature_vector_attention_mask(states.shape[1], attention_mask).unsqueeze(-1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1)


def freeze_unused(model: nn.Module, output: torch.Tensor) -> None:
    """Freeze the parameters that `output` does not depend on, such as those of a pooler.

    DistributedDataParallel waits for a gradient of every parameter that is not frozen.
    """
    found, nodes = set(), [output.grad_fn]
    while nodes:
        found.add(node := nodes.pop())
        nodes += [child for child, _ in node.next_functions if child is not None and child not in found]
    used = {node.variable for node in found if hasattr(node, "variable")}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in used)


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


def encoder_from_config(config: dict[str, Any], known: Iterable[type[PreTrainedModel]] = ()) -> PreTrainedModel:
    """Build an encoder with random weights from its configuration as a dictionary.

    Classes in `known` need not be registered with the Auto classes. Code that a configuration refers to is not run.
    """
    for model_class in known:
        if config["model_type"] == model_class.config_class.model_type:
            return model_class(model_class.config_class.from_dict(config))
    registered = transformers.AutoConfig.for_model(**config)
    return transformers.AutoModel.from_config(registered, trust_remote_code=False)


def load_weights(encoder: PreTrainedModel, source: str | Path, prefix: str) -> tuple[PreTrainedModel, dict[str, list]]:
    """Load the weights of an encoder from a folder or the Hub into a new one with the same configuration.

    Returns the new encoder and transformers' `loading_info`, with `prefix` before the names of the parameters.
    """
    loaded, loading_info = transformers.AutoModel.from_pretrained(
        source, config=encoder.config, output_loading_info=True, use_safetensors=True
    )
    return loaded, {
        "missing_keys": [prefix + key for key in loading_info["missing_keys"]],
        "mismatched_keys": [(prefix + key, *rest) for key, *rest in loading_info["mismatched_keys"]],
    }


def copy_encoder_fields(config: PreTrainedConfig, *names: str) -> None:
    """Copy fields of `config.encoder` that exist to `config`, such as those that a tokenizer has to fit."""
    for name in names:
        if name in (config.encoder or {}):
            setattr(config, name, config.encoder[name])


class ClassifierMixin:
    """A classifier: an encoder of the class `encoder_class`, and the layers that `add_head` puts on top of it."""

    encoder_class: type[PreTrainedModel]

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)  # type: ignore[call-arg]
        self.num_labels = config.num_labels
        setattr(self, self.base_model_prefix, self.encoder_class(config))
        self.add_head(config)
        self.post_init()


class TextClassifierMixin(ClassifierMixin):
    """A classifier of tokens or texts, whose `logits` method reads the output of the encoder."""

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
        """Compute `logits` (B, T, num_labels) of tokens or (B, num_labels) of texts, and with labels `loss`.

        `input_ids` and `attention_mask` are (B, T), `labels` (B, T), -100 where a token has none, or (B,).
        """
        outputs = self.base_model(
            input_ids, attention_mask, output_hidden_states=output_hidden_states, output_pieces=False
        )
        logits = self.logits(outputs)
        return classification_output(self.output_class, logits, labels, outputs.hidden_states, return_dict)


class LayerMixMixin:
    """A linear layer on the scalar mix of layers, or on its mean and maximum over positions if `pools_positions`."""

    pools_positions = False

    def add_layer_mix(self, num_layers: int, width: int) -> None:
        """Add the layers of the head; `width` is the size of the states of the encoder."""
        self.scalar_mix = ScalarMix(num_layers)
        self.dropout = nn.Dropout(self.config.classifier_dropout)
        self.classifier = nn.Linear(2 * width if self.pools_positions else width, self.config.num_labels)

    def classify(self, layers: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """`layers` (B, N, H) and `mask` (B, N) -> logits (B, N, num_labels), or (B, num_labels) after pooling."""
        states = self.scalar_mix(layers)
        if self.pools_positions:
            states = mean_and_maximum(states, mask)
        return self.classifier(self.dropout(states))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ScalarMix):
            init.zeros_(module.weights)
            init.ones_(module.scale)
        else:
            super()._init_weights(module)


class ImagePreTrainedModel(PreTrainedModel):
    """Base class of models that read images."""

    main_input_name = "pixel_values"
    input_modalities = ("image",)


class ImageClassifierMixin(ClassifierMixin):
    """An image classifier: a linear layer on the pooled output of the encoder."""

    def add_head(self, config: PreTrainedConfig) -> None:
        width = config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size
        self.classifier = nn.Linear(width, config.num_labels)

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
