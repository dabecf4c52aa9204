"""A residual network that learns small images fast, for budgets of minutes on a processor.

It follows Jordan (2024), "94% on CIFAR-10 in 3.29 seconds on a single GPU", https://arxiv.org/abs/2404.00498. The
stem's kernels of 2 × 2 whiten the training images and stay as they are. Every block pools after its first convolution,
and drops what a window of 2 does not fill. The head reads the largest activation of each channel. Shortcuts are folded
into the kernels, which begin as the identity (Zagoruyko & Komodakis 2017, "DiracNets", https://arxiv.org/abs/1706.00388).

Shape legend: B batch, C channels, S height and width, H last hidden size.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention

from .heads import ClassifiesImages


class FastResNetConfig(PreTrainedConfig):
    """Sizes of a fast residual network; every block halves height and width."""

    model_type = "toolkit-fast-resnet"

    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (32, 128, 128)
    whitening_width: int = 2


class Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False) for channels in (in_channels, out_channels)
        )
        self.normalizations = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(2))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = self.convolutions[0](states)
        states = F.max_pool2d(states, 2, ceil_mode=1 in states.shape[2:])  # a single pixel stays
        states = F.gelu(self.normalizations[0](states))
        return F.gelu(self.normalizations[1](self.convolutions[1](states)))


class FastResNetPreTrainedModel(PreTrainedModel):
    config_class = FastResNetConfig
    base_model_prefix = "fast_resnet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            kernels = torch.empty_like(module.weight)
            nn.init.kaiming_uniform_(kernels, a=5**0.5)
            nn.init.dirac_(kernels[: kernels.shape[1]])  # the first outputs are the inputs
            init.copy_(module.weight, kernels)


class FastResNetModel(FastResNetPreTrainedModel):
    def __init__(self, config: FastResNetConfig):
        super().__init__(config)
        width, channels = config.whitening_width, config.num_channels
        self.embedder = nn.Conv2d(channels, 2 * channels * width**2, width, bias=False).requires_grad_(False)
        sizes = pairwise([self.embedder.out_channels, *config.hidden_sizes])
        self.blocks = nn.ModuleList(Block(*pair) for pair in sizes)
        self.post_init()

    @torch.no_grad()
    def whiten(self, pixel_values: torch.Tensor) -> None:
        """Let the stem's outputs be uncorrelated on `pixel_values` (B, C, S, S), with a deviation of 1: the directions
        in which its patches differ, and their negatives."""
        width = self.config.whitening_width
        patches = F.unfold(pixel_values, width).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(patches.T.cov())
        kernels = (vectors / (values + 5e-4).sqrt()).T.view(-1, *self.embedder.weight.shape[1:])
        self.embedder.weight.copy_(torch.cat([kernels, -kernels]))

    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool = False, **kwargs
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """`pixel_values` (B, C, S, S) -> `pooler_output` (B, H), and states after the stem and the blocks."""
        layers = [F.gelu(self.embedder(pixel_values))]
        for block in self.blocks:
            layers.append(block(layers[-1]))
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=layers[-1],
            pooler_output=layers[-1].amax(dim=(2, 3)),
            hidden_states=tuple(layers) if output_hidden_states else None,
        )


class FastResNetForImageClassification(ClassifiesImages, FastResNetPreTrainedModel):
    def __init__(self, config: FastResNetConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.fast_resnet = FastResNetModel(config)
        self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels)
        self.post_init()
