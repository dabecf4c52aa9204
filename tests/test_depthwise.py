"""Depthwise convolutions on small maps equal those of torch, forward and backward."""

import copy

import pytest
import torch
from torch import nn

from toolkit.models.depthwise import DepthwiseConv2d, speed_up_depthwise


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (4, 3), (4, 4), (7, 7)])
@pytest.mark.parametrize("width", [3, 5, 7])
def test_outputs_and_gradients_equal_torch(width, size):
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Conv2d(6, 6, width, padding=width // 2, groups=6))
    found = copy.deepcopy(expected)
    parameters = list(found.parameters())
    generator = torch.get_rng_state()
    speed_up_depthwise(found)
    assert torch.equal(torch.get_rng_state(), generator)
    assert type(found[0]) is DepthwiseConv2d
    assert all(new is old for new, old in zip(found.parameters(), parameters, strict=True)), "shared, not copied"
    assert list(found.state_dict()) == list(expected.state_dict())
    states, grads = torch.randn(3, 6, *size), []
    for model in (expected, found):
        inputs = states.clone().requires_grad_()
        outputs = model(inputs)
        outputs.square().sum().backward()
        grads.append([outputs.detach(), inputs.grad, model[0].weight.grad, model[0].bias.grad])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(6, 6, 3, padding=1),
        nn.Conv2d(6, 12, 3, padding=1, groups=6),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, stride=2),
        nn.Conv2d(6, 6, 3, padding=2, groups=6, dilation=2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, padding_mode="reflect"),
        nn.Conv2d(6, 6, 4, padding=2, groups=6),
        nn.Conv2d(1, 1, 3, padding=1),
    ],
)
def test_other_convolutions_are_not_changed(other):
    speed_up_depthwise(other)
    assert type(other) is nn.Conv2d
