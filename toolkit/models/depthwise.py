"""Depthwise convolutions whose kernels are larger than the map, as networks for phones have on small images.

Their backward pass takes processors many times as long. Without the weights that see padding alone, and with the
padding a part of the map, it does not, and what comes out is the same.
"""

import torch
from torch import nn
from torch.nn import functional as F


class DepthwiseConv2d(nn.Conv2d):
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
    """Let the model compute such convolutions that way: the same parameters, used otherwise."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels > 1:
            size = module.kernel_size[0]
            found = (module.kernel_size, module.padding, module.stride, module.dilation, module.padding_mode)
            if size % 2 == 1 and found == ((size,) * 2, (size // 2,) * 2, (1, 1), (1, 1), "zeros"):
                module.__class__ = DepthwiseConv2d
