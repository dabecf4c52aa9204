"""AdamW, SGD, and Muon with AdamW for the parameters that Muon does not suit.

Muon orthogonalizes the momentum of each matrix: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural
networks", https://kellerjordan.github.io/posts/muon/. Its updates have the length of AdamW's, so that both share one
learning rate: Liu et al. (2025), "Muon is scalable for LLM training", https://arxiv.org/abs/2502.16982.
"""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from transformers.modeling_layers import GradientCheckpointingLayer

from toolkit.errors import InputError
from toolkit.training.arguments import TrainingArguments

NEWTON_SCHULZ, NUM_ITERATIONS = (3.4445, -4.7750, 2.0315), 5  # coefficients of x, x³ and x⁵, of Jordan et al.


class ParameterOptions(NamedTuple):
    """Options of a group of parameters."""

    scale: float = 1.0  # factor of the learning rate (layer-wise learning-rate decay)
    start: float = 0.0  # fraction of the run in which the parameters stay frozen at first (head-only warm-up)


OptionsByName = Callable[[str], ParameterOptions]  # the options of a parameter, by its name


def same_options(name: str) -> ParameterOptions:
    """The same options for every parameter."""
    return ParameterOptions()


def make_optimizer(
    model, arguments: TrainingArguments, options: OptionsByName, accelerator: Accelerator
) -> torch.optim.Optimizer:
    """The optimizer that `--optim` names. Its learning rate is zero until the loop sets it."""
    if arguments.optim != "muon":
        groups = parameter_groups(model, arguments.weight_decay, options)
        if arguments.optim == "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise InputError("--optim muon: needs whole matrices, which FSDP2 and DeepSpeed shard; use adamw")
    groups = parameter_groups(model, arguments.weight_decay, options, muon_parameters(model))
    in_float32 = accelerator.device.type == "cpu" and not arguments.bf16
    return MuonWithAdamW(groups, lr=0.0, dtype=torch.float32 if in_float32 else torch.bfloat16)


def parameter_groups(
    model, weight_decay: float, options: OptionsByName = same_options, with_muon: Collection[torch.nn.Parameter] = ()
) -> list[dict]:
    """Group the trainable parameters by their options and optimizer. Biases, norms and other vectors do not decay."""
    groups: dict[tuple, list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (*options(name), weight_decay if parameter.ndim >= 2 else 0.0, parameter in with_muon)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "start": start, "weight_decay": decay, "muon": muon}
        for (scale, start, decay, muon), parameters in groups.items()
    ]


def muon_parameters(model) -> set[torch.nn.Parameter]:
    """The trainable matrices of transformer layers, and the kernels of all convolutions but the first.

    Muon does not suit embeddings, heads and the layer that reads pixels. Raises `InputError` if nothing is left.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1]
    matrices = {p for layer in layers for p in layer.parameters() if p.ndim == 2 and p.requires_grad}
    matrices |= {p for layer in convolutions[1:] for p in layer.parameters() if p.ndim == 4 and p.requires_grad}
    if not matrices:
        raise InputError(
            f"--optim muon: {type(model).__name__} has no transformer layers or convolutions to train; "
            "use adamw or sgd"
        )
    return matrices


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the parameter groups with a true `muon`, and torch's AdamW for the others."""

    def __init__(self, groups: list[dict], lr: float, dtype: torch.dtype = torch.bfloat16):
        self.muon = Muon([g for g in groups if g["muon"]], lr, dtype)
        self.adamw = torch.optim.AdamW([g for g in groups if not g["muon"]], lr, fused=True)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})

    def step(self, closure=None) -> None:  # type: ignore[override]
        for optimizer in (self.muon, self.adamw):
            # This object holds groups and states, because `load_state_dict` replaces them here only.
            optimizer.param_groups = [g for g in self.param_groups if g["muon"] == (optimizer is self.muon)]
            optimizer.state = self.state
            optimizer.step()


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum; orthogonalizes all matrices of one shape at once.

    `torch.optim.Muon` makes the same updates, but always multiplies in bfloat16, which takes hundreds of times longer
    than float32 on CPUs without bfloat16, and refuses convolutions. Here a kernel is a matrix with one row per output
    channel.
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
                momenta = torch.stack([self._momentum(parameter, group).flatten(1) for parameter in parameters])
                directions = orthogonalize(momenta.to(self.dtype)).to(momenta.dtype)
                length = 0.2 * max(momenta.shape[1:]) ** 0.5
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


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Approximate the nearest matrices with orthonormal rows or columns by a Newton-Schulz iteration.

    `matrices` and the result are (number, rows, columns).
    """
    is_tall = matrices.size(1) > matrices.size(2)
    wide = matrices.mT if is_tall else matrices
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NUM_ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if is_tall else wide
