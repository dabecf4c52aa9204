"""A fully connected network on pixels, a baseline without any notion of neighbouring pixels.

Shape legend: B batch, C channels, S height and width.
"""

from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention as ImageEncoderOutput

from .heads import ImageClassifierMixin, ImagePreTrainedModel


class MlpConfig(PreTrainedConfig):
    """Sizes of a multilayer perceptron."""

    model_type = "toolkit-mlp"

    image_size: int = 32
    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (512, 512)
    hidden_dropout_prob: float = 0.2


class MlpPreTrainedModel(ImagePreTrainedModel):
    config_class = MlpConfig
    base_model_prefix = "mlp"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)


class MlpModel(MlpPreTrainedModel):
    """Linear layers with ReLU and dropout on the flattened pixels."""

    def __init__(self, config: MlpConfig):
        super().__init__(config)
        sizes = [config.num_channels * config.image_size**2, *config.hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False, **kwargs) -> ImageEncoderOutput:
        """`pixel_values` (B, C, S, S) -> `pooler_output` (B, last hidden size), and the states of each layer."""
        states, layers = pixel_values.flatten(1), []
        for layer in self.layers:
            states = self.dropout(layer(states).relu())
            layers.append(states)
        hidden_states = tuple(layers) if output_hidden_states else None
        return ImageEncoderOutput(layers[-1], states, hidden_states)


class MlpForImageClassification(ImageClassifierMixin, MlpPreTrainedModel):
    encoder_class = MlpModel
