"""Kernels and feature maps of image classifiers, and maps of which parts of an image are important for a label.

An image is `pixels` (1, C, S, S), the model's input. An importance map is (S, S), in logits or shares of attention;
larger values mark more important parts.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from toolkit.errors import extra
from toolkit.explain.attention import attention_weights

WINDOW, STRIDE = 4, 16  # the occluding square is a quarter of the image wide and moves by a sixteenth
RECTIFIERS = {  # functions that pass positive values on, more or less unchanged
    *(torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, F.relu, F.relu_, F.relu6),
    *(F.gelu, F.silu, F.hardswish, F.leaky_relu, F.elu, F.softplus, F.mish),
}


def first_kernels(model: nn.Module) -> np.ndarray | None:
    """The kernels of the first convolution, (kernels, channels, height, width); None if there is no convolution."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return None if first is None else first.weight.detach().float().cpu().numpy()


@torch.no_grad()
def feature_maps(model: nn.Module, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output (1, channels, height, width) of each module that has maps, by name, in the network's order."""
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
    """For each size of feature maps the last layer that has it: the one before the network reduces the resolution.

    Layers that consist of others, such as stages and blocks, are preferred.
    """
    is_composite = {name: any(True for _ in model.get_submodule(name).children()) for name in maps}
    last: dict[tuple[int, ...], str] = {}
    for name in sorted(maps, key=lambda name: is_composite[name]):  # stable, so the later of a kind wins
        last[tuple(maps[name].shape[2:])] = name
    return [name for name in maps if name in last.values()]


def strongest(output: torch.Tensor, num_filters: int) -> list[int]:
    """The channels of `output` (1, channels, height, width) with the largest values, in descending order."""
    return output[0].amax(dim=(1, 2)).topk(min(num_filters, output.shape[1])).indices.tolist()


def deconvolution(model: nn.Module, pixels: torch.Tensor, layer: str, channels: Iterable[int]) -> torch.Tensor:
    """Project the largest activation of some filters of a layer back to the pixels, with a deconvolutional network.

    The activation goes back through the transposed kernels and the positions of the maxima of pooling windows; each
    rectifier sets negative values to 0. Other layers are traversed as by gradients. Returns the pattern in the image
    that excites each filter, (filters, C, S, S).

    Zeiler & Fergus (2013), "Visualizing and understanding convolutional networks", https://arxiv.org/abs/1311.2901.
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
    """A rectifier whose backward pass rectifies the gradient instead of multiplying it by the derivative."""

    @staticmethod
    def forward(ctx, states: torch.Tensor, function: Callable) -> torch.Tensor:
        return function(states.clone())

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        return grad.clamp(min=0), None


class _RectifiedBackwards(TorchFunctionMode):
    """Replace every rectifier, whether a module or a function, by `_Rectified`."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in RECTIFIERS:
            states, *rest = args
            return _Rectified.apply(states, lambda x: function(x, *rest, **(kwargs or {})))
        return function(*args, **(kwargs or {}))


def occlusion_map(model: nn.Module, pixels: torch.Tensor, label: int) -> np.ndarray:
    """How much the label's logit falls when a square of the mean colour occludes a pixel, as the mean over all squares
    that cover the pixel. Zeiler & Fergus (2013), section 4.2."""
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
    """The positive part of a layer's maps, weighted by the mean gradients of the label's logit.

    Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra (2017), "Grad-CAM", https://arxiv.org/abs/1610.02391.
    """
    with extra("explain"):
        from captum.attr import LayerAttribution, LayerGradCam

    method = LayerGradCam(lambda given: model(pixel_values=given).logits, model.get_submodule(layer))
    found = method.attribute(pixels, target=label, relu_attributions=True)
    larger = LayerAttribution.interpolate(found, tuple(pixels.shape[2:]), "bilinear")
    return larger[0, 0].detach().cpu().numpy()


def attentions(model: PreTrainedModel, pixels: torch.Tensor) -> list[torch.Tensor] | None:
    """The attention weights of each layer, (heads, tokens, tokens); None for a network that does not return any."""
    if not getattr(model.config, "num_attention_heads", None):
        return None
    return attention_weights(model, pixel_values=pixels) or None


def attention_rollout(layers: Sequence[torch.Tensor], shape: Sequence[int]) -> np.ndarray:
    """How much of each patch reaches the classification token, the first one, through all layers.

    Attention, of shape (heads, tokens, tokens) in each layer, is averaged over heads, mixed with the residual
    connection (one half), and multiplied over layers. Returns shares that sum to 1 over patches, interpolated to
    `shape`, the height and width of the map.

    Abnar & Zuidema (2020), "Quantifying attention flow in transformers", https://arxiv.org/abs/2005.00928.
    """
    num_tokens = layers[0].shape[-1]
    reached = torch.eye(num_tokens)
    for layer in layers:
        reached = (layer.mean(dim=0) + torch.eye(num_tokens)) / 2 @ reached
    return on_image(reached[0, 1:] / reached[0, 1:].sum(), shape)


def on_image(patches: torch.Tensor, shape: Sequence[int]) -> np.ndarray:
    """Interpolate one number per patch, given row by row, to a map of that shape."""
    side = round(len(patches) ** 0.5)
    square = patches.view(1, 1, side, -1)
    return F.interpolate(square, tuple(shape), mode="bilinear", align_corners=False)[0, 0].numpy()


def importance_maps(model: PreTrainedModel, pixels: torch.Tensor, label: int) -> dict[str, np.ndarray]:
    """The maps that apply to the model, by name: occlusion, and attention or else grad_cam."""
    maps = {"occlusion": occlusion_map(model, pixels, label)}
    if found := attentions(model, pixels):
        maps["attention"] = attention_rollout(found, pixels.shape[2:])
    elif layers := main_layers(model, feature_maps(model, pixels)):
        maps["grad_cam"] = grad_cam(model, pixels, label, layers[-1])
    return maps
