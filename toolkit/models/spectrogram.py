"""Any image encoder on spectrograms: frequency is the height of the image, time its width.

Hershey et al. (2017), "CNN architectures for large-scale audio classification", https://arxiv.org/abs/1609.09430.

Shape legend: B batch, T frames, M mel filters, C channels, S height and width, H features.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention as EncoderOutput
from transformers.modeling_outputs import SequenceClassifierOutput

from .heads import ClassifierMixin, encoder_from_config, load_weights, pool_image_features
from .log_mel import LogMelFeatureExtractor  # noqa: F401  (its file belongs to this model on a Hub)
from .mlp import MlpModel
from .pooling import KNOWN_ENCODERS as POOLED_ENCODERS
from .pooling import PooledModel

# Classes that a copy of this file on a Hub builds without the Auto classes.
KNOWN_ENCODERS = (*POOLED_ENCODERS, MlpModel, PooledModel)
NUM_CHANNELS = 3  # of the images that the encoders read


class SpectrogramConfig(PreTrainedConfig):
    """Configuration of an image encoder on spectrograms; `encoder` is that of the encoder, as a dictionary."""

    model_type = "toolkit-spectrogram"

    encoder: dict[str, Any] | None = None
    image_size: int | None = None  # to which spectrograms are resized; None keeps their size
    hidden_size: int | None = None  # of the features of the encoder


class SpectrogramPreTrainedModel(PreTrainedModel):
    config_class = SpectrogramConfig
    base_model_prefix = "spectrogram"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    _supports_sdpa = True


class SpectrogramModel(SpectrogramPreTrainedModel):
    """The encoder, which reads a spectrogram as an image with three equal channels."""

    def __init__(self, config: SpectrogramConfig):
        super().__init__(config)
        self.encoder = _without_pooler(encoder_from_config(config.encoder, KNOWN_ENCODERS))
        self.post_init()

    def images(self, input_values: torch.Tensor) -> torch.Tensor:
        """(B, T, M) -> (B, C, M, T), or (B, C, S, S) if the configuration has an `image_size`."""
        images = input_values.transpose(1, 2).unsqueeze(1)
        if self.config.image_size is not None:
            size = (self.config.image_size, self.config.image_size)
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return images.expand(-1, NUM_CHANNELS, -1, -1)

    def forward(self, input_values: torch.Tensor, output_hidden_states: bool = False, **kwargs) -> EncoderOutput:
        """`input_values` (B, T, M) -> the encoder's `last_hidden_state`, and `pooler_output` (B, H)."""
        outputs = self.encoder(self.images(input_values), output_hidden_states=output_hidden_states)
        return EncoderOutput(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=pool_image_features(outputs),
            hidden_states=outputs.hidden_states,
        )

    def load_encoder(self, source: str | Path, prefix: str = "encoder.") -> dict[str, list]:
        """Load the weights of the image encoder; see `load_weights`."""
        encoder, loading_info = load_weights(self.encoder, source, prefix)
        self.encoder = _without_pooler(encoder)
        return loading_info


def _without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """A vision transformer without its pooler, which is not pretrained and would not be trained here."""
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        encoder.pooler = None
    return encoder


class SpectrogramForAudioClassification(ClassifierMixin, SpectrogramPreTrainedModel):
    """A linear layer on the features of the encoder."""

    encoder_class = SpectrogramModel

    def add_head(self, config: SpectrogramConfig) -> None:
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """`input_values` (B, T, M), `labels` (B,) -> `logits` (B, num_labels), and `loss` with labels."""
        outputs = self.spectrogram(input_values, output_hidden_states=output_hidden_states)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def load_encoder(self, source: str | Path) -> dict[str, list]:
        """Load the weights of the image encoder; see `load_weights`."""
        return self.spectrogram.load_encoder(source, "spectrogram.encoder.")
