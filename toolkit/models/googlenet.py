"""GoogLeNet: blocks that apply kernels of several sizes to the same feature maps.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke & Rabinovich (2015), "Going deeper with convolutions",
https://arxiv.org/abs/1409.4842. This is torchvision's variant, whose weights give the same outputs here: batch
normalization after every convolution, and 3 × 3 instead of 5 × 5 kernels. With `small_images` the stem keeps the
resolution, as in `toolkit.models.resnet`.

Shape legend: B batch, C channels, S height and width, H last hidden size.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention as ImageEncoderOutput
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from .heads import ImageClassifierMixin, ImagePreTrainedModel

BLOCK_CHANNELS = (  # table 1: 1 × 1, reduction and 3 × 3, reduction and "5 × 5", projection after pooling
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
POOLING_BEFORE = {2: 3, 7: 2}  # index of a block: width of the pooling window before it
AUXILIARY_BLOCKS = (2, 5)  # indices of the blocks that the auxiliary heads read
AUXILIARY_WEIGHT = 0.3


class GoogLeNetConfig(PreTrainedConfig):
    """Sizes of GoogLeNet; `width` multiplies the paper's numbers of channels."""

    model_type = "toolkit-googlenet"

    num_channels: int = 3
    width: float = 1.0
    small_images: bool = False
    auxiliary_heads: bool = False  # two more classifiers lower down, while training
    classifier_dropout: float = 0.2

    def channels(self, of_paper: int) -> int:
        return max(1, round(of_paper * self.width))

    def block_channels(self, index: int) -> int:
        """The number of output channels of a block."""
        one, _, three, _, five, pooled = map(self.channels, BLOCK_CHANNELS[index])
        return one + three + five + pooled

    @property
    def hidden_size(self) -> int:
        return self.block_channels(-1)


class GoogLeNetConvolution(nn.Module):
    """Convolution, batch normalization and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(states)).relu()


class InceptionBlock(nn.Module):
    """(B, C, S, S) -> (B, sum of the channels of four branches, S, S)."""

    def __init__(self, in_channels: int, one: int, narrow3: int, three: int, narrow5: int, five: int, pooled: int):
        super().__init__()
        convolution = GoogLeNetConvolution
        self.branch1 = convolution(in_channels, one)
        self.branch2 = nn.Sequential(convolution(in_channels, narrow3), convolution(narrow3, three, 3))
        self.branch3 = nn.Sequential(convolution(in_channels, narrow5), convolution(narrow5, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(in_channels, pooled))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(states) for branch in (self.branch1, self.branch2, self.branch3, self.branch4)], 1)


class AuxiliaryHead(nn.Module):
    """A classifier on the maps of a lower block: (B, C, S, S) -> logits (B, num_labels)."""

    def __init__(self, in_channels: int, config: GoogLeNetConfig):
        super().__init__()
        narrow, hidden = config.channels(128), config.channels(1024)
        self.conv = GoogLeNetConvolution(in_channels, narrow)
        self.fc1 = nn.Linear(16 * narrow, hidden)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(hidden, config.num_labels)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = self.conv(F.adaptive_avg_pool2d(states, 4)).flatten(1)
        return self.fc2(self.dropout(self.fc1(states).relu()))


class GoogLeNetPreTrainedModel(ImagePreTrainedModel):
    config_class = GoogLeNetConfig
    base_model_prefix = "googlenet"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")


class GoogLeNetModel(GoogLeNetPreTrainedModel):
    """The stem and nine inception blocks."""

    def __init__(self, config: GoogLeNetConfig):
        super().__init__(config)
        first, second = config.channels(64), config.channels(192)
        stride = 1 if config.small_images else 2
        pooling = nn.Identity() if config.small_images else nn.MaxPool2d(3, 2, ceil_mode=True)
        self.stem = nn.Sequential(
            GoogLeNetConvolution(config.num_channels, first, 3 if config.small_images else 7, stride),
            pooling,
            GoogLeNetConvolution(first, first),
            GoogLeNetConvolution(first, second, 3),
            pooling,
        )
        inputs = [second, *map(config.block_channels, range(len(BLOCK_CHANNELS) - 1))]
        self.blocks = nn.ModuleList(
            InceptionBlock(channels, *map(config.channels, sizes))
            for channels, sizes in zip(inputs, BLOCK_CHANNELS, strict=True)
        )
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False, **kwargs) -> ImageEncoderOutput:
        """`pixel_values` (B, C, S, S) -> `pooler_output` (B, H), and the maps of the stem and of each block."""
        layers = [self.stem(pixel_values)]
        for index, block in enumerate(self.blocks):
            states = layers[-1]
            if index in POOLING_BEFORE:
                states = F.max_pool2d(states, POOLING_BEFORE[index], 2, ceil_mode=True)
            layers.append(block(states))
        hidden_states = tuple(layers) if output_hidden_states else None
        return ImageEncoderOutput(layers[-1], layers[-1].mean(dim=(2, 3)), hidden_states)


class GoogLeNetForImageClassification(ImageClassifierMixin, GoogLeNetPreTrainedModel):
    encoder_class = GoogLeNetModel

    def add_head(self, config: GoogLeNetConfig) -> None:
        linear = nn.Linear(config.hidden_size, config.num_labels)
        self.classifier = nn.Sequential(nn.Dropout(config.classifier_dropout), linear)
        blocks = AUXILIARY_BLOCKS if config.auxiliary_heads else ()
        self.auxiliary = nn.ModuleList(AuxiliaryHead(config.block_channels(index), config) for index in blocks)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        **kwargs,
    ) -> ImageClassifierOutputWithNoAttention:
        """Classify images as other networks do; the training loss includes those of the auxiliary heads, times 0.3."""
        outputs = super().forward(pixel_values, labels, output_hidden_states=True)
        loss, hidden_states = outputs.loss, outputs.hidden_states
        if loss is not None and self.training:
            for index, head in zip(AUXILIARY_BLOCKS, self.auxiliary, strict=False):
                logits = head(hidden_states[index + 1])
                loss = loss + AUXILIARY_WEIGHT * self.loss_function(labels, logits, self.config)
        hidden_states = hidden_states if output_hidden_states else None
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=outputs.logits, hidden_states=hidden_states)
