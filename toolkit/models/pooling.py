"""Any convolutional image encoder with a global pooling of choice: one vector per image of any size.

The generalized mean, whose exponent is learned, is due to Radenović, Tolias & Chum (2018), "Fine-tuning CNN image
retrieval with no human annotation", https://arxiv.org/abs/1711.02512.

Shape legend: B batch, C channels, S height and width, H channels of the last maps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention as ImageEncoderOutput

from .fast_resnet import FastResNetModel
from .googlenet import GoogLeNetModel
from .heads import ImageClassifierMixin, ImagePreTrainedModel, encoder_from_config, load_weights
from .lenet import LeNetModel
from .resnet import SmallImageResNetModel

# Classes that a copy of this file on a Hub builds without the Auto classes.
KNOWN_ENCODERS = (FastResNetModel, GoogLeNetModel, LeNetModel, SmallImageResNetModel)
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
        self, pixel_values: torch.Tensor | Sequence[torch.Tensor], output_hidden_states: bool = False, **kwargs
    ) -> ImageEncoderOutput:
        """Encode and pool images, (B, C, S, S) or a list of images (C, height, width) of any sizes.

        Images of a list that have the same size are encoded together. In training, batch normalization of an image
        that is alone in its size uses the running statistics. Returns `pooler_output` (B, H), and maps of a tensor.
        """
        if isinstance(pixel_values, torch.Tensor):
            outputs = self.encoder(pixel_values, output_hidden_states=output_hidden_states)
            maps = outputs.last_hidden_state
            pooled = self.pooling(maps)
            return ImageEncoderOutput(maps, pooler_output=pooled, hidden_states=outputs.hidden_states)
        indices_of_size: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(pixel_values):
            indices_of_size.setdefault(image.shape, []).append(index)
        vectors = []
        for indices in indices_of_size.values():
            has_statistics = self.training and len(indices) > 1
            with nullcontext() if has_statistics else _running_statistics(self.encoder):
                vectors.append(self(torch.stack([pixel_values[i] for i in indices])).pooler_output)
        order = torch.tensor([index for indices in indices_of_size.values() for index in indices])
        return ImageEncoderOutput(pooler_output=torch.cat(vectors)[order.argsort()])


class PooledForImageClassification(ImageClassifierMixin, PooledPreTrainedModel):
    encoder_class = PooledModel

    def load_encoder(self, source: str | Path) -> dict[str, list]:
        """Load the weights of the encoder; see `load_weights`."""
        self.pooled.encoder, loading_info = load_weights(self.pooled.encoder, source, "pooled.encoder.")
        return loading_info


@contextmanager
def _running_statistics(encoder: nn.Module) -> Iterator[None]:
    """Let batch normalization use its running statistics."""
    layers = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
    try:
        for layer in layers:
            layer.eval()
        yield
    finally:
        for layer in layers:
            layer.train()
