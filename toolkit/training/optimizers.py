"""Muon, whose steps are orthogonal matrices, for the layers of transformers and convolutional networks; AdamW for all
that is around them.

Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/. That its steps are as long as AdamW's, so that both take one learning rate,
is of Liu et al. (2025), "Muon is scalable for LLM training", https://arxiv.org/abs/2502.16982.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from toolkit.errors import InputError

NEWTON_SCHULZ, NUM_ITERATIONS = (3.4445, -4.7750, 2.0315), 5  # coefficients of x, x³ and x⁵, of Jordan et al.


class ParameterOptions(NamedTuple):
    """Options of a group of parameters.

    Attributes:
        scale: Factor of the learning rate (layer-wise learning-rate decay).
        start: Fraction of the run in which the parameters stay frozen at first (head-only warm-up).
    """

    scale: float = 1.0
    start: float = 0.0


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the groups of parameters whose `muon` is true, and torch's AdamW for the others."""

    def __init__(self, groups: list[dict], lr: float, dtype: torch.dtype = torch.bfloat16):
        self.muon = Muon([g for g in groups if g["muon"]], lr, dtype)
        self.adamw = torch.optim.AdamW([g for g in groups if not g["muon"]], lr, fused=True)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})

    def step(self, closure=None) -> None:  # type: ignore[override]
        for optimizer in (self.muon, self.adamw):
            # Groups and states are kept here, where loading replaces them.
            optimizer.param_groups = [g for g in self.param_groups if g["muon"] == (optimizer is self.muon)]
            optimizer.state = self.state
            optimizer.step()


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum and steps as long as AdamW's, for all matrices of a shape at once.

    `torch.optim.Muon` takes the same steps. It multiplies in bfloat16 alone, which a CPU that does not know it does
    hundreds of times slower than float32, and takes no convolutions; here a kernel is a matrix with a row an output.
    """

    def __init__(self, params: Iterable, lr: float, dtype: torch.dtype = torch.bfloat16):
        super().__init__(params, {"lr": lr, "weight_decay": 0.1, "momentum": 0.95})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                steps = torch.stack([self._momentum(parameter, group).flatten(1) for parameter in parameters])
                directions = orthogonalised(steps.to(self.dtype)).to(steps.dtype)
                length = 0.2 * max(steps.shape[1:]) ** 0.5
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction.view(shape), alpha=-group["lr"] * length)

    def _momentum(self, parameter: torch.nn.Parameter, group: dict) -> torch.Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(average, group["momentum"])


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """(number, rows, columns): about the nearest matrices of orthonormal rows or columns, by Newton and Schulz."""
    is_tall = matrices.size(1) > matrices.size(2)
    wide = matrices.mT if is_tall else matrices
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NUM_ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if is_tall else wide


def matrices_of_layers(model) -> set[torch.nn.Parameter]:
    """The trained matrices in the layers of a transformer, and the kernels of convolutions but for the first: not
    embeddings and heads, which Muon does not suit. Raises `InputError` where there are none.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1]
    matrices = {parameter for layer in layers for parameter in layer.parameters() if parameter.ndim == 2}
    matrices |= {p for layer in convolutions[1:] for p in layer.parameters() if p.ndim == 4}  # the first reads pixels
    matrices = {parameter for parameter in matrices if parameter.requires_grad}
    if not matrices:
        raise InputError(f"--optim muon: {type(model).__name__} has no layers that it is for, use adamw or sgd")
    return matrices
