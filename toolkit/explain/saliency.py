"""What an image classifier looks at: its kernels, what its layers see of an image, and which parts of it count.

An image is `pixels` (1, C, S, S) as the model reads it; an importance map is (S, S), in logits or shares, larger where
the image counts for more.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from toolkit.errors import extra

WINDOW, STRIDE = 4, 16  # the covering square is a quarter of the image wide and moves by a sixteenth
RECTIFIERS = {  # all that pass what is positive on, more or less as it is
    *(torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, F.relu, F.relu_, F.relu6),
    *(F.gelu, F.silu, F.hardswish, F.leaky_relu, F.elu, F.softplus, F.mish),
}


def first_kernels(model: nn.Module) -> np.ndarray | None:
    """The kernels of the first convolution, (kernels, channels, height, width); None where there is none."""
    found = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    first = next(found, None)
    return None if first is None else first.weight.detach().float().cpu().numpy()


@torch.no_grad()
def feature_maps(model: nn.Module, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each module that gives maps gives of the image, (1, channels, height, width), in the network's order."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(module, inputs, output) -> None:
            if isinstance(output, torch.Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
                found[name] = output

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    try:
        model(pixel_values=pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def main_layers(model: nn.Module, maps: dict[str, torch.Tensor]) -> list[str]:
    """Of the layers that give maps of one size, the last that is made of others, or the last of all where none is:
    what the network hands on before it makes maps smaller."""
    made_of_others = {name: any(True for _ in model.get_submodule(name).children()) for name in maps}
    last: dict[tuple[int, ...], str] = {}
    for name in sorted(maps, key=lambda name: made_of_others[name]):  # stable, so that the later of a kind wins
        last[tuple(maps[name].shape[2:])] = name
    return [name for name in maps if name in last.values()]


def strongest(output: torch.Tensor, num_filters: int) -> list[int]:
    """The channels of `output` (1, channels, height, width) with the largest values, the largest first."""
    return output[0].amax(dim=(1, 2)).topk(min(num_filters, output.shape[1])).indices.tolist()


def deconvolution(model: nn.Module, pixels: torch.Tensor, layer: str, channels: Iterable[int]) -> torch.Tensor:
    """What in the image excites filters of a layer, each where its map is largest: (filters, C, S, S).

    Zeiler & Fergus (2013), "Visualizing and understanding convolutional networks", https://arxiv.org/abs/1311.2901.
    The largest value goes back through the same kernels turned round, to where each maximum of a pooling window came
    from, and at each rectifier what is negative is dropped. All else of a network is gone through as gradients do.
    """
    pixels = pixels.detach().requires_grad_()
    outputs = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        with torch.enable_grad(), _RectifiedBackwards():
            model(pixel_values=pixels)
    finally:
        hook.remove()
    patterns: list[torch.Tensor] = []
    for channel in channels:
        places = outputs[0][0, channel].flatten()
        value = places[places.argmax()]
        patterns += torch.autograd.grad(value, pixels, value.detach(), retain_graph=True)
    return torch.cat(patterns)


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states: torch.Tensor, function: Callable) -> torch.Tensor:
        return function(states.clone())

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        return grad.clamp(min=0), None


class _RectifiedBackwards(TorchFunctionMode):
    """Every rectifier, however it is called, drops what is negative of a gradient, and nothing else."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in RECTIFIERS:
            states, *rest = args
            return _Rectified.apply(states, lambda x: function(x, *rest, **(kwargs or {})))
        return function(*args, **(kwargs or {}))


def occlusion_map(model: nn.Module, pixels: torch.Tensor, label: int) -> np.ndarray:
    """By how much the label's logit falls where a square of the mean colour covers the image: the mean over all
    squares that cover a place. Zeiler & Fergus (2013), section 4.2."""
    with extra("explain"):
        from captum.attr import Occlusion

    channels, size = pixels.shape[1], min(pixels.shape[2:])
    window, stride = max(1, size // WINDOW), max(1, size // STRIDE)
    found = Occlusion(lambda changed: model(pixel_values=changed).logits).attribute(
        pixels,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
        baselines=0,
        target=label,
        perturbations_per_eval=32,
    )
    return found[0, 0].detach().cpu().numpy()


def grad_cam(model: nn.Module, pixels: torch.Tensor, label: int, layer: str) -> np.ndarray:
    """The maps of a layer, weighted by how much the label's logit rises with each, where that is positive: Selvaraju,
    Cogswell, Das, Vedantam, Parikh & Batra (2017), "Grad-CAM", https://arxiv.org/abs/1610.02391."""
    with extra("explain"):
        from captum.attr import LayerAttribution, LayerGradCam

    method = LayerGradCam(lambda given: model(pixel_values=given).logits, model.get_submodule(layer))
    found = method.attribute(pixels, target=label, relu_attributions=True)
    larger = LayerAttribution.interpolate(found, tuple(pixels.shape[2:]), "bilinear")
    return larger[0, 0].detach().cpu().numpy()


@torch.no_grad()
def attentions(model: PreTrainedModel, pixels: torch.Tensor) -> list[torch.Tensor] | None:
    """What each layer of a transformer attends to, (heads, tokens, tokens) each; None of a network without attention
    that can be seen."""
    if not getattr(model.config, "num_attention_heads", None):
        return None
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        found = model(pixel_values=pixels, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    return [layer[0].float().cpu() for layer in found] if found else None


def attention_rollout(layers: Sequence[torch.Tensor], shape: Sequence[int]) -> np.ndarray:
    """How much of each place reaches the classifying token, the first, through all layers (heads, tokens, tokens), as
    a share of all, drawn to `shape`.

    Each layer's mean over its heads, half of it the token itself, multiplied from layer to layer: Abnar & Zuidema
    (2020), "Quantifying attention flow in transformers", https://arxiv.org/abs/2005.00928.
    """
    num_tokens = layers[0].shape[-1]
    reached = torch.eye(num_tokens)
    for layer in layers:
        reached = (layer.mean(dim=0) + torch.eye(num_tokens)) / 2 @ reached
    return on_image(reached[0, 1:] / reached[0, 1:].sum(), shape)


def on_image(patches: torch.Tensor, shape: Sequence[int]) -> np.ndarray:
    """One number a patch, row by row, as a map of that shape."""
    side = round(len(patches) ** 0.5)
    square = patches.view(1, 1, side, -1)
    return F.interpolate(square, tuple(shape), mode="bilinear", align_corners=False)[0, 0].numpy()


def importance_maps(model: PreTrainedModel, pixels: torch.Tensor, label: int) -> dict[str, np.ndarray]:
    """Those that apply to the model, by name: occlusion, and attention or else grad_cam."""
    maps = {"occlusion": occlusion_map(model, pixels, label)}
    if found := attentions(model, pixels):
        maps["attention"] = attention_rollout(found, pixels.shape[2:])
    elif layers := main_layers(model, feature_maps(model, pixels)):
        maps["grad_cam"] = grad_cam(model, pixels, label, layers[-1])
    return maps
