"""Task heads that read a learned mix of all layers of any transformers encoder, instead of its top layer.

Peters et al. (2018), "Deep contextualized word representations", https://arxiv.org/abs/1802.05365: the layers of a
language model encode different information, and the top layer mostly the next word. ELMo's own heads read such a mix
too.

Shape legend: B batch, T tokens, H width of the encoder.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import ModelOutput

from .heads import (
    ScalarMix,
    classification_output,
    copy_encoder_fields,
    encoder_from_config,
    mean_and_maximum,
    with_prefix,
)


class LayerMixConfig(PreTrainedConfig):
    """Configuration of a head on a mix of layers; `encoder` is that of the encoder, as a dictionary."""

    model_type = "toolkit-layer-mix"

    encoder: dict[str, Any] | None = None
    classifier_dropout: float = 0.1

    def __post_init__(self, **kwargs):
        copy_encoder_fields(self, "vocab_size", "max_position_embeddings", "pad_token_id")
        super().__post_init__(**kwargs)


class LayerMixPreTrainedModel(PreTrainedModel):
    """An encoder, the mix of its layers, and a linear layer on features that a subclass computes from the mix."""

    config_class = LayerMixConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    output_class: type[ModelOutput]
    width_factor = 1  # size of the features as a multiple of the encoder's width

    def __init__(self, config: LayerMixConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = _without_pooler(encoder_from_config(config.encoder))
        encoder_config = self.encoder.config
        self.scalar_mix = ScalarMix(encoder_config.num_hidden_layers + 1)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.width_factor * encoder_config.hidden_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ScalarMix):
            init.zeros_(module.weights)
            init.ones_(module.scale)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.02)
            init.zeros_(module.bias)

    def load_encoder(self, source: str | Path) -> dict[str, Any]:
        """Load the weights of the encoder from a folder or the Hub; returns transformers' `loading_info`, with the
        names that the parameters have in this model."""
        encoder, loading_info = transformers.AutoModel.from_pretrained(
            source, config=self.encoder.config, output_loading_info=True, use_safetensors=True
        )
        self.encoder = _without_pooler(encoder)
        return with_prefix(f"{self.base_model_prefix}.", loading_info)

    def features(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The input of the linear layer from the mix `states` (B, T, H) and `mask` (B, T), 0 for padding."""
        return states

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> ModelOutput | tuple:
        """Classify tokens or texts; `input_ids` and `attention_mask` are (B, T), `labels` as the subclass says."""
        layers = self.encoder(input_ids, attention_mask, output_hidden_states=True, **kwargs).hidden_states
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        logits = self.classifier(self.dropout(self.features(self.scalar_mix(layers), mask)))
        hidden_states = layers if output_hidden_states else None
        return classification_output(self.output_class, logits, labels, hidden_states, return_dict)


class LayerMixForTokenClassification(LayerMixPreTrainedModel):
    """Classifies each token: `labels` (B, T), -100 where a token has none; logits (B, T, num_labels)."""

    output_class = TokenClassifierOutput


class LayerMixForSequenceClassification(LayerMixPreTrainedModel):
    """Classifies texts by the mean and the maximum over tokens: `labels` (B,); logits (B, num_labels)."""

    output_class = SequenceClassifierOutput
    width_factor = 2

    def features(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mean_and_maximum(states, mask)


def _without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """Remove the pooler, which no head here uses."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder
