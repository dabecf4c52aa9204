"""Residual networks for small images: transformers' ResNet with a stem that keeps the resolution.

He, Zhang, Ren & Sun (2016), "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385. The stem
of the paper's ImageNet networks reduces height and width to a quarter each; that of its CIFAR-10 networks, a single
3 × 3 convolution, keeps them and is used here. Apart from the stem, the names of the parameters and the outputs are
those of `transformers.ResNetForImageClassification`.

Shape legend: B batch, C channels, S height and width, H last hidden size.
"""

from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention as ImageEncoderOutput

from .heads import ImageClassifierMixin, ImagePreTrainedModel


class SmallImageResNetConfig(PreTrainedConfig):
    """Sizes of a residual network; every stage but the first halves height and width."""

    model_type = "toolkit-resnet"

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    layer_type: str = "basic"  # or bottleneck
    shortcuts: bool = True  # without shortcuts it is a plain network, as the paper compares


class ResNetConvolution(nn.Module):
    """Convolution, batch normalization and optionally ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, relu: bool = True):
        super().__init__()
        padding = kernel_size // 2
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.normalization = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.normalization(self.convolution(states)))


class ResNetBlock(nn.Module):
    """A residual block: two 3 × 3 convolutions, or a bottleneck of 1 × 1, 3 × 3 and 1 × 1, and the shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: SmallImageResNetConfig):
        super().__init__()
        if not config.shortcuts:
            self.shortcut = None
        elif in_channels != out_channels or stride != 1:
            self.shortcut = ResNetConvolution(in_channels, out_channels, 1, stride, relu=False)
        else:
            self.shortcut = nn.Identity()
        if config.layer_type == "bottleneck":
            narrow = out_channels // 4
            self.layer = nn.Sequential(
                ResNetConvolution(in_channels, narrow, 1),
                ResNetConvolution(narrow, narrow, 3, stride),
                ResNetConvolution(narrow, out_channels, 1, relu=False),
            )
        else:
            self.layer = nn.Sequential(
                ResNetConvolution(in_channels, out_channels, 3, stride),
                ResNetConvolution(out_channels, out_channels, relu=False),
            )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        shortcut = 0 if self.shortcut is None else self.shortcut(states)
        return (self.layer(states) + shortcut).relu()


class ResNetStage(nn.Module):
    """Blocks of the same size, the first of which may reduce the resolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, depth: int, config: SmallImageResNetConfig):
        super().__init__()
        first = ResNetBlock(in_channels, out_channels, stride, config)
        rest = (ResNetBlock(out_channels, out_channels, 1, config) for _ in range(depth - 1))
        self.layers = nn.Sequential(first, *rest)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.layers(states)


class SmallImageResNetPreTrainedModel(ImagePreTrainedModel):
    config_class = SmallImageResNetConfig
    base_model_prefix = "resnet"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class SmallImageResNetModel(SmallImageResNetPreTrainedModel):
    """The stem, the stages and global average pooling."""

    def __init__(self, config: SmallImageResNetConfig):
        super().__init__(config)
        self.embedder = ResNetConvolution(config.num_channels, config.embedding_size)
        sizes = pairwise([config.embedding_size, *config.hidden_sizes])
        stages = nn.ModuleList(
            ResNetStage(*channels, 1 if i == 0 else 2, depth, config)
            for i, (channels, depth) in enumerate(zip(sizes, config.depths, strict=True))
        )
        self.encoder = nn.ModuleDict({"stages": stages})  # parameters are named as in transformers
        self.pooler = nn.AdaptiveAvgPool2d(1)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False, **kwargs) -> ImageEncoderOutput:
        """`pixel_values` (B, C, S, S) -> `pooler_output` (B, H, 1, 1), and the maps of the stem and of each stage."""
        layers = [self.embedder(pixel_values)]
        for stage in self.encoder["stages"]:
            layers.append(stage(layers[-1]))
        hidden_states = tuple(layers) if output_hidden_states else None
        return ImageEncoderOutput(layers[-1], self.pooler(layers[-1]), hidden_states)


class SmallImageResNetForImageClassification(ImageClassifierMixin, SmallImageResNetPreTrainedModel):
    encoder_class = SmallImageResNetModel

    def add_head(self, config: SmallImageResNetConfig) -> None:
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(config.hidden_sizes[-1], config.num_labels))
