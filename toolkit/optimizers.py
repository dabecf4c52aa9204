"""Muon, whose steps are orthogonal matrices, for the matrices inside a transformer; AdamW for all that is around them.

Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/. That its steps are as long as AdamW's, so that both take one learning rate,
is of Liu et al. (2025), "Muon is scalable for LLM training", https://arxiv.org/abs/2502.16982.
"""

from collections.abc import Iterable

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from toolkit.errors import InputError


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


class Muon(torch.optim.Muon):
    """torch's Muon with steps as long as AdamW's, for all matrices of a shape at once, in any precision.

    torch multiplies in bfloat16 alone, which a CPU that does not know it does hundreds of times slower than float32.
    """

    def __init__(self, params: Iterable, lr: float, dtype: torch.dtype = torch.bfloat16):
        super().__init__(params, lr, adjust_lr_fn="match_rms_adamw")
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in shapes.items():
                steps = [self._momentum(parameter, group) for parameter in parameters]
                directions = self._orthogonalise(torch.stack(steps), group).to(parameters[0].dtype)
                length = 0.2 * max(rows, columns) ** 0.5
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction, alpha=-group["lr"] * length)

    def _momentum(self, parameter: torch.nn.Parameter, group: dict) -> torch.Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(average, group["momentum"])

    def _orthogonalise(self, matrices: torch.Tensor, group: dict) -> torch.Tensor:
        """(number, rows, columns): about the nearest matrices of orthonormal rows or columns, by Newton and Schulz."""
        a, b, c = group["ns_coefficients"]
        is_tall = matrices.size(1) > matrices.size(2)
        wide = (matrices.mT if is_tall else matrices).to(self.dtype)
        wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
        for _ in range(group["ns_steps"]):
            gram = wide @ wide.mT
            wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
        return wide.mT if is_tall else wide


def matrices_of_layers(model) -> set[torch.nn.Parameter]:
    """The trained matrices in the layers of a transformer: not embeddings and heads, which Muon does not suit.

    Raises `InputError` where there are none.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    parameters = {parameter for layer in layers for parameter in layer.parameters()}
    matrices = {parameter for parameter in parameters if parameter.ndim == 2 and parameter.requires_grad}
    if not matrices:
        raise InputError(f"--optim muon: {type(model).__name__} has no layers of a transformer to train, use adamw")
    return matrices
