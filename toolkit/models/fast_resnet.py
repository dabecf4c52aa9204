"""A residual network that learns small images fast, for budgets of minutes on a CPU.

It follows Jordan (2024), "94% on CIFAR-10 in 3.29 seconds on a single GPU", https://arxiv.org/abs/2404.00498: the
2 × 2 kernels of the stem whiten the training images and are not trained, every block pools after its first
convolution, and the head reads the maximum of each channel. The shortcuts are part of the kernels, which start as the
identity: Zagoruyko & Komodakis (2017), "DiracNets: training very deep neural networks without skip-connections",
https://arxiv.org/abs/1706.00388.

Shape legend: B batch, C channels, S height and width, H last hidden size.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention as ImageEncoderOutput

from .heads import ImageClassifierMixin, ImagePreTrainedModel

WHITENING_EPSILON = 5e-4  # added to the variances


class FastResNetConfig(PreTrainedConfig):
    """Sizes of a fast residual network; every block halves height and width."""

    model_type = "toolkit-fast-resnet"

    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (32, 128, 128)
    whitening_width: int = 2


class FastResNetBlock(nn.Module):
    """Convolution, max pooling, convolution, each convolution with batch normalization and GELU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False) for channels in (in_channels, out_channels)
        )
        self.normalizations = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(2))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = self.convolutions[0](states)
        states = F.max_pool2d(states, 2, ceil_mode=1 in states.shape[2:])  # an odd row is dropped, a single one kept
        states = F.gelu(self.normalizations[0](states))
        return F.gelu(self.normalizations[1](self.convolutions[1](states)))


class FastResNetPreTrainedModel(ImagePreTrainedModel):
    config_class = FastResNetConfig
    base_model_prefix = "fast_resnet"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            kernels = torch.empty_like(module.weight)
            nn.init.kaiming_uniform_(kernels, a=5**0.5)
            nn.init.dirac_(kernels[: kernels.shape[1]])  # the first outputs are the inputs
            init.copy_(module.weight, kernels)


class FastResNetModel(FastResNetPreTrainedModel):
    """The stem, the blocks and global max pooling."""

    def __init__(self, config: FastResNetConfig):
        super().__init__(config)
        width, channels = config.whitening_width, config.num_channels
        self.embedder = nn.Conv2d(channels, 2 * channels * width**2, width, bias=False).requires_grad_(False)
        sizes = pairwise([self.embedder.out_channels, *config.hidden_sizes])
        self.blocks = nn.ModuleList(FastResNetBlock(*pair) for pair in sizes)
        self.post_init()

    @torch.no_grad()
    def whiten(self, pixel_values: torch.Tensor) -> None:
        """Set the kernels of the stem to the principal components of patches of images (B, C, S, S), and their
        negatives. On these images the outputs of the stem are then uncorrelated, with a standard deviation of 1."""
        width = self.config.whitening_width
        patches = F.unfold(pixel_values, width).transpose(1, 2).flatten(0, 1)
        variances, components = torch.linalg.eigh(patches.T.cov())
        kernels = (components / (variances + WHITENING_EPSILON).sqrt()).T.view(-1, *self.embedder.weight.shape[1:])
        self.embedder.weight.copy_(torch.cat([kernels, -kernels]))

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False, **kwargs) -> ImageEncoderOutput:
        """`pixel_values` (B, C, S, S) -> `pooler_output` (B, H), and the maps of the stem and of each block."""
        layers = [F.gelu(self.embedder(pixel_values))]
        for block in self.blocks:
            layers.append(block(layers[-1]))
        hidden_states = tuple(layers) if output_hidden_states else None
        return ImageEncoderOutput(layers[-1], layers[-1].amax(dim=(2, 3)), hidden_states)


class FastResNetForImageClassification(ImageClassifierMixin, FastResNetPreTrainedModel):
    encoder_class = FastResNetModel
