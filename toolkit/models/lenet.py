"""LeNet-5, a convolutional network for handwritten characters.

LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document recognition",
https://doi.org/10.1109/5.726791. Everything below the head is as in the paper, with its 60,000 parameters: a unit of a
subsampling layer adds four pixels and learns a factor and a bias, each map of the third layer reads some of the six
maps before it (table I), activations are 1.7159 tanh(2x/3), and weights start uniformly within ±2.4 / (inputs of the
unit). The head is a learned linear layer instead of distances to drawn digits.

Shape legend: B batch, C channels, S height and width, H hidden size.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention as ImageEncoderOutput

from .heads import ImageClassifierMixin, ImagePreTrainedModel

MIN_IMAGE_SIZE = 32  # pixels
CONNECTED_MAPS = (  # the maps, of six, that each of sixteen maps reads: 3 or 4 neighbours on a ring, 2 pairs, all
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class LeNetConfig(PreTrainedConfig):
    """Configuration of a LeNet-5, which reads 32 × 32 grey pixels, and of larger images the mean over all positions.
    A smaller `image_size` is a `ValueError`."""

    model_type = "toolkit-lenet"

    image_size: int = MIN_IMAGE_SIZE
    hidden_size: int = 84

    def __post_init__(self, **kwargs):
        if self.image_size < MIN_IMAGE_SIZE:
            raise ValueError(f"LeNet-5 takes images of {MIN_IMAGE_SIZE} pixels or more")
        super().__post_init__(**kwargs)


class Subsampling(nn.Module):
    """(B, C, S, S) -> (B, C, S/2, S/2)"""

    def __init__(self, num_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(num_channels, 1, 1))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return 4 * F.avg_pool2d(states, 2) * self.weight + self.bias


class PartialConvolution(nn.Module):
    """(B, 6, S, S) -> (B, 16, S - 4, S - 4): a kernel of 5 × 5 for each pair of connected maps."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(sum(map(len, CONNECTED_MAPS)), 5, 5))
        self.bias = nn.Parameter(torch.empty(len(CONNECTED_MAPS)))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        outputs = torch.tensor([i for i, maps in enumerate(CONNECTED_MAPS) for _ in maps], device=states.device)
        inputs = torch.tensor([i for maps in CONNECTED_MAPS for i in maps], device=states.device)
        kernels = self.weight.new_zeros(len(CONNECTED_MAPS), states.shape[1], 5, 5)
        return F.conv2d(states, kernels.index_put((outputs, inputs), self.weight), self.bias)


class LeNetPreTrainedModel(ImagePreTrainedModel):
    config_class = LeNetConfig
    base_model_prefix = "lenet"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Subsampling):
            num_inputs = 4.0
        elif isinstance(module, PartialConvolution):
            num_inputs = module.weight.numel() / len(CONNECTED_MAPS)  # on average
        elif isinstance(module, nn.Conv2d | nn.Linear):
            num_inputs = module.weight[0].numel()
        else:
            return
        for parameter in module.parameters(recurse=False):
            init.uniform_(parameter, -2.4 / num_inputs, 2.4 / num_inputs)


class LeNetModel(LeNetPreTrainedModel):
    """The layers C1 to F6 of the paper."""

    def __init__(self, config: LeNetConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(
            [nn.Conv2d(1, 6, 5), Subsampling(6), PartialConvolution(), Subsampling(16), nn.Conv2d(16, 120, 5)]
        )
        self.dense = nn.Linear(120, config.hidden_size)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False, **kwargs) -> ImageEncoderOutput:
        """`pixel_values` (B, C, S, S), averaged over C -> `pooler_output` (B, H), and the maps of each layer."""
        maps, layers = pixel_values.mean(dim=1, keepdim=True), []
        for layer in self.layers:
            maps = _scaled_tanh(layer(maps))
            layers.append(maps)
        hidden_states = tuple(layers) if output_hidden_states else None
        return ImageEncoderOutput(layers[-1], _scaled_tanh(self.dense(maps.mean(dim=(2, 3)))), hidden_states)


class LeNetForImageClassification(ImageClassifierMixin, LeNetPreTrainedModel):
    encoder_class = LeNetModel


def _scaled_tanh(states: torch.Tensor) -> torch.Tensor:
    return 1.7159 * torch.tanh(states * 2 / 3)
