"""Any convolutional image encoder with a global pooling of choice: one vector per image of any size.

The generalized mean, whose exponent is learned, is due to Radenović, Tolias & Chum (2018), "Fine-tuning CNN image
retrieval with no human annotation", https://arxiv.org/abs/1711.02512.

Shape legend: B batch, C channels, S height and width, H channels of the last maps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

from .fast_resnet import FastResNetConfig, FastResNetModel
from .googlenet import GoogLeNetConfig, GoogLeNetModel
from .heads import ImageClassifierMixin, ImagePreTrainedModel, encoder_from_config, with_prefix
from .lenet import LeNetConfig, LeNetModel
from .resnet import SmallImageResNetConfig, SmallImageResNetModel

KNOWN_ENCODERS = (  # found here without the Auto classes, for a copy of this file on a Hub
    (FastResNetConfig, FastResNetModel),
    (GoogLeNetConfig, GoogLeNetModel),
    (LeNetConfig, LeNetModel),
    (SmallImageResNetConfig, SmallImageResNetModel),
)
INITIAL_EXPONENT = 3.0
EPSILON = 1e-6  # values are at least this large before they are raised to the exponent


class PooledConfig(PreTrainedConfig):
    """Configuration of an image encoder with a global pooling; `encoder` is that of the encoder, as a dictionary."""

    model_type = "toolkit-pooled"

    encoder: dict[str, Any] | None = None
    pooling: str = "average"  # or max, l2, gem
    hidden_size: int | None = None  # channels of the last maps


class GlobalPooling(nn.Module):
    """Pool feature maps over the n positions: (B, H, S, S) -> (B, H).

    Args:
        kind: max, average, l2 (`1/n · sqrt(Σ h²)`) or gem, the generalized mean `(1/n · Σ h^p)^(1/p)`, which is the
            mean for p = 1 and approaches the maximum for large p.
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        if kind == "gem":
            self.power = nn.Parameter(torch.tensor([INITIAL_EXPONENT]))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        positions = maps.flatten(2)
        if self.kind == "max":
            return positions.amax(dim=2)
        if self.kind == "l2":
            return positions.norm(dim=2) / positions.shape[2]
        if self.kind == "gem":
            return positions.clamp(min=EPSILON).pow(self.power).mean(dim=2).pow(1 / self.power)
        return positions.mean(dim=2)


class PooledPreTrainedModel(ImagePreTrainedModel):
    config_class = PooledConfig
    base_model_prefix = "pooled"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GlobalPooling) and module.kind == "gem":
            init.constant_(module.power, INITIAL_EXPONENT)


class PooledModel(PooledPreTrainedModel):
    """The encoder and the pooling."""

    def __init__(self, config: PooledConfig):
        super().__init__(config)
        self.encoder = encoder_from_config(config.encoder, KNOWN_ENCODERS)
        self.pooling = GlobalPooling(config.pooling)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor | Sequence[torch.Tensor],
        output_hidden_states: bool = False,
        **kwargs,
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """Encode and pool images.

        Args:
            pixel_values: (B, C, S, S), or a list of images (C, height, width) of any sizes, of which those of the same
                size are encoded together. In training, batch normalization of an image that is alone in its size uses
                the running statistics.

        Returns:
            `pooler_output` (B, H), and for a tensor also the maps.
        """
        if isinstance(pixel_values, torch.Tensor):
            outputs = self.encoder(pixel_values, output_hidden_states=output_hidden_states)
            return BaseModelOutputWithPoolingAndNoAttention(
                last_hidden_state=outputs.last_hidden_state,
                pooler_output=self.pooling(outputs.last_hidden_state),
                hidden_states=outputs.hidden_states,
            )
        indices_of_size: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(pixel_values):
            indices_of_size.setdefault(image.shape, []).append(index)
        vectors = []
        for indices in indices_of_size.values():
            with _batch_statistics(self.encoder, self.training and len(indices) > 1):
                vectors.append(self(torch.stack([pixel_values[i] for i in indices])).pooler_output)
        order = torch.tensor([index for indices in indices_of_size.values() for index in indices])
        return BaseModelOutputWithPoolingAndNoAttention(pooler_output=torch.cat(vectors)[order.argsort()])


class PooledForImageClassification(ImageClassifierMixin, PooledPreTrainedModel):
    def __init__(self, config: PooledConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.pooled = PooledModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def load_encoder(self, source: str | Path) -> dict[str, Any]:
        """Load the weights of the encoder from a folder or the Hub; returns transformers' `loading_info`, with the
        names that the parameters have in this model."""
        self.pooled.encoder, loading_info = transformers.AutoModel.from_pretrained(
            source, config=self.pooled.encoder.config, output_loading_info=True, use_safetensors=True
        )
        return with_prefix("pooled.encoder.", loading_info)


@contextmanager
def _batch_statistics(encoder: nn.Module, enabled: bool) -> Iterator[None]:
    """Unless enabled, let batch normalization use its running statistics."""
    layers = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [layer.training for layer in layers]
    for layer, was_training in zip(layers, before, strict=True):
        layer.train(was_training and enabled)
    try:
        yield
    finally:
        for layer, was_training in zip(layers, before, strict=True):
            layer.train(was_training)
