"""Task heads that read a learned mix of all layers of any transformers encoder, instead of its top layer.

Peters et al. (2018), "Deep contextualized word representations", https://arxiv.org/abs/1802.05365: the layers of a
language model encode different information, and the top layer mostly the next word. ELMo's own heads do so too.

Shape legend: B batch, T tokens, H width of the encoder.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import ModelOutput

from .heads import LayerMixMixin, classification_output, copy_encoder_fields, encoder_from_config, load_weights


class LayerMixConfig(PreTrainedConfig):
    """Configuration of a head on a mix of layers; `encoder` is that of the encoder, as a dictionary."""

    model_type = "toolkit-layer-mix"

    encoder: dict[str, Any] | None = None
    classifier_dropout: float = 0.1

    def __post_init__(self, **kwargs):
        copy_encoder_fields(self, "vocab_size", "max_position_embeddings", "pad_token_id")
        super().__post_init__(**kwargs)


class LayerMixPreTrainedModel(LayerMixMixin, PreTrainedModel):
    """An encoder, and a linear layer on the mix of its layers."""

    config_class = LayerMixConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    output_class: type[ModelOutput]

    def __init__(self, config: LayerMixConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = encoder_from_config(config.encoder)
        self.encoder.pooler = None  # no head here uses it
        self.add_layer_mix(self.encoder.config.num_hidden_layers + 1, self.encoder.config.hidden_size)
        self.post_init()

    def load_encoder(self, source: str | Path) -> dict[str, list]:
        """Load the weights of the encoder; see `load_weights`."""
        self.encoder, loading_info = load_weights(self.encoder, source, "encoder.")
        self.encoder.pooler = None
        return loading_info

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
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        layers = self.encoder(**inputs, output_hidden_states=True, **kwargs).hidden_states
        logits = self.classify(layers, torch.ones_like(input_ids) if attention_mask is None else attention_mask)
        hidden_states = layers if output_hidden_states else None
        return classification_output(self.output_class, logits, labels, hidden_states, return_dict)


class LayerMixForTokenClassification(LayerMixPreTrainedModel):
    """Classifies each token: `labels` (B, T), -100 where a token has none; logits (B, T, num_labels)."""

    output_class = TokenClassifierOutput


class LayerMixForSequenceClassification(LayerMixPreTrainedModel):
    """Classifies texts by the mean and the maximum over tokens: `labels` (B,); logits (B, num_labels)."""

    output_class = SequenceClassifierOutput
    pools_positions = True
