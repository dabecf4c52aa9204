"""Muon, whose steps are orthogonal matrices, for the matrices inside a transformer; AdamW for all that is around them.

Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/. That its steps are as long as AdamW's, so that both take one learning rate,
is of Liu et al. (2025), "Muon is scalable for LLM training", https://arxiv.org/abs/2502.16982.
"""

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from toolkit.errors import InputError


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon for the groups of parameters whose `muon` is true, and its AdamW for the others."""

    def __init__(self, groups: list[dict], lr: float):
        self.muon = torch.optim.Muon([g for g in groups if g["muon"]], lr, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW([g for g in groups if not g["muon"]], lr, fused=True)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})

    def step(self, closure=None) -> None:  # type: ignore[override]
        for optimizer in (self.muon, self.adamw):
            # Groups and states are kept here, where loading replaces them.
            optimizer.param_groups = [g for g in self.param_groups if g["muon"] == (optimizer is self.muon)]
            optimizer.state = self.state
            optimizer.step()


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
