"""Faster depthwise convolutions on CPUs for feature maps that are smaller than the kernel.

Networks for phones have such convolutions on small images, and their backward pass is many times slower than it need
be. Cropping the weights that see only padding, and padding the map explicitly, avoids this and gives the same output.
"""

import torch
from torch import nn
from torch.nn import functional as F


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution with stride 1 that keeps the size of the map."""

    @classmethod
    def from_convolution(cls, convolution: nn.Conv2d) -> "DepthwiseConv2d":
        """Build a layer with the same parameters, which are shared and not copied."""
        layer = cls(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,
            padding=convolution.padding,
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",  # no memory, and no random numbers, for weights that are replaced
        )
        layer.weight, layer.bias = convolution.weight, convolution.bias
        return layer.train(convolution.training)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> the same shape."""
        centre = self.kernel_size[0] // 2
        height, width = states.shape[2:]
        if states.device.type != "cpu" or min(height, width) > 2 * centre:
            return super().forward(states)
        down, right = min(centre, height - 1), min(centre, width - 1)
        kernels = self.weight[:, :, centre - down : centre + down + 1, centre - right : centre + right + 1]
        padded = F.pad(states, (right, right, down, down)).contiguous(memory_format=torch.channels_last)
        return F.conv2d(padded, kernels, self.bias, groups=self.groups)


def speed_up_depthwise(model: nn.Module) -> None:
    """Replace the depthwise convolutions of a model that keep the size of the map by `DepthwiseConv2d`."""
    for name, module in list(model.named_modules()):
        if name and type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels > 1:
            size = module.kernel_size[0]
            found = (module.kernel_size, module.padding, module.stride, module.dilation, module.padding_mode)
            if size % 2 == 1 and found == ((size,) * 2, (size // 2,) * 2, (1, 1), (1, 1), "zeros"):
                model.set_submodule(name, DepthwiseConv2d.from_convolution(module))
