"""Heads that read a learned mix of all layers of any encoder of transformers, in the place of its top layer alone.

Peters et al. (2018), https://arxiv.org/abs/1802.05365: the layers of a language model know different things, and its
top one mostly what the next word is. An ELMo's own heads read such a mix as well.

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

from .heads import ScalarMix, classification_output, mean_and_maximum, new_encoder, take_over, under


class LayerMixConfig(PreTrainedConfig):
    """`encoder` is the configuration of the encoder, as a dictionary."""

    model_type = "toolkit-layer-mix"

    encoder: dict[str, Any] | None = None
    classifier_dropout: float = 0.1

    def __post_init__(self, **kwargs):
        take_over(self, "vocab_size", "max_position_embeddings", "pad_token_id")
        super().__post_init__(**kwargs)


class LayerMixPreTrainedModel(PreTrainedModel):
    """A linear layer on what a subclass takes from the mix, `widths` times as wide as the encoder."""

    config_class = LayerMixConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    output_class: type[ModelOutput]
    widths = 1

    def __init__(self, config: LayerMixConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = _without_pooler(new_encoder(config.encoder))
        encoder_config = self.encoder.config
        self.scalar_mix = ScalarMix(encoder_config.num_hidden_layers + 1)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.widths * encoder_config.hidden_size, config.num_labels)
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
        """Take the encoder's weights from a folder or the Hub; returns what transformers says of them, by the names
        that they have here."""
        encoder, loading = transformers.AutoModel.from_pretrained(
            source, config=self.encoder.config, output_loading_info=True, use_safetensors=True
        )
        self.encoder = _without_pooler(encoder)
        return under(f"{self.base_model_prefix}.", loading)

    def read(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the linear layer gets of the mix `states` (B, T, H), `mask` (B, T) being 0 for padding."""
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
        """`labels` and logits as the subclass says."""
        layers = self.encoder(input_ids, attention_mask, output_hidden_states=True, **kwargs).hidden_states
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        logits = self.classifier(self.dropout(self.read(self.scalar_mix(layers), mask)))
        hidden_states = layers if output_hidden_states else None
        return classification_output(self.output_class, logits, labels, hidden_states, return_dict)


class LayerMixForTokenClassification(LayerMixPreTrainedModel):
    """Of each token: `labels` (B, T), -100 where a token has none; logits (B, T, num_labels)."""

    output_class = TokenClassifierOutput


class LayerMixForSequenceClassification(LayerMixPreTrainedModel):
    """Of the mean and the maximum over tokens: `labels` (B,); logits (B, num_labels)."""

    output_class = SequenceClassifierOutput
    widths = 2

    def read(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mean_and_maximum(states, mask)


def _without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """A pooler reads the top layer, for heads that are not here."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder
