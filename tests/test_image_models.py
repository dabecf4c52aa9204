"""Image encoders compared with their papers, torchvision and transformers."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from encoder_cases import CASES
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetForImageClassification

from toolkit.data.image_decoding import open_image
from toolkit.data.image_files import IMAGES
from toolkit.modalities import MODALITIES
from toolkit.modalities.arguments import ImageEncoderArguments
from toolkit.modalities.pixels import PixelProcessor
from toolkit.models.families import PREFIX
from toolkit.models.fast_resnet import FastResNetConfig, FastResNetForImageClassification
from toolkit.models.googlenet import GoogLeNetConfig, GoogLeNetForImageClassification
from toolkit.models.lenet import LeNetConfig, LeNetForImageClassification, LeNetModel
from toolkit.models.resnet import (
    SmallImageResNetConfig,
    SmallImageResNetForImageClassification,
    SmallImageResNetModel,
)
from toolkit.transfer.encoders import load_encoder


def test_lenet_has_the_parameters_of_the_paper():
    """Section II.B of the paper: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164."""
    model = LeNetModel(LeNetConfig())
    counts = [sum(p.numel() for p in layer.parameters()) for layer in (*model.layers, model.dense)]
    assert counts == [156, 12, 1_516, 32, 48_120, 10_164]
    assert sum(counts) == model.num_parameters() == 60_000


def subsampled(maps: torch.Tensor, layer) -> torch.Tensor:
    four = sum(maps[:, :, down::2, right::2] for down in (0, 1) for right in (0, 1))
    return squashed(four * layer.weight + layer.bias)


def squashed(states: torch.Tensor) -> torch.Tensor:
    return 1.7159 * torch.tanh(2 / 3 * states)


def test_lenet_computes_what_the_paper_says():
    torch.manual_seed(0)
    model = LeNetModel(LeNetConfig())
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    c1, s2, c3, s4, c5 = model.layers
    images = torch.rand(2, 3, 32, 32)
    maps = subsampled(squashed(F.conv2d(images.mean(dim=1, keepdim=True), c1.weight, c1.bias)), s2)
    rings = [sorted((first + i) % 6 for i in range(length)) for length in (3, 4) for first in range(6)]
    pairs = [sorted((first + i) % 6 for i in (0, 1, 3, 4)) for first in range(3)]
    kernels, found = iter(c3.weight), []
    for seen, bias in zip([*rings, *pairs, range(6)], c3.bias, strict=True):
        found.append(sum(F.conv2d(maps[:, [i]], next(kernels)[None, None]) for i in seen) + bias)
    assert next(kernels, None) is None
    maps = subsampled(squashed(torch.cat(found, dim=1)), s4)
    states = squashed(F.conv2d(maps, c5.weight, c5.bias)).flatten(1)
    expected = squashed(F.linear(states, model.dense.weight, model.dense.bias))
    torch.testing.assert_close(model(images).pooler_output, expected, rtol=1e-4, atol=1e-4)


def test_lenet_is_initialized_within_the_bounds_of_the_paper():
    model = LeNetForImageClassification(LeNetConfig())
    for layer, inputs in ((model.lenet.layers[0], 25), (model.lenet.layers[4], 400), (model.lenet.dense, 120)):
        assert 0.9 * 2.4 / inputs < layer.weight.abs().max() <= 2.4 / inputs


def test_lenet_needs_images_of_32_pixels():
    with pytest.raises(ValueError, match="LeNet-5 takes images of 32 pixels or more"):
        LeNetConfig(image_size=31)
    assert LeNetModel(LeNetConfig(image_size=32)).eval()(torch.zeros(1, 3, 32, 32)).last_hidden_state.shape[2:] == (
        1,
        1,
    )


@pytest.fixture(scope="module")
def googlenets():
    """Torchvision's network, and the toolkit's with the same weights."""
    torch.manual_seed(0)
    theirs = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False, num_classes=7)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    ours = GoogLeNetForImageClassification(GoogLeNetConfig(num_labels=7, auxiliary_heads=True))
    names = {"conv1": "stem.0", "conv2": "stem.2", "conv3": "stem.3"}
    names |= {f"inception{name}": f"blocks.{i}" for i, name in enumerate("3a 3b 4a 4b 4c 4d 4e 5a 5b".split())}
    names = {name: f"googlenet.{called}" for name, called in names.items()}
    names |= {"fc": "classifier.1", "aux1": "auxiliary.0", "aux2": "auxiliary.1"}
    weights = {}
    for name, value in theirs.state_dict().items():
        layer, _, rest = name.partition(".")
        weights[f"{names[layer]}.{rest}"] = value
    ours.load_state_dict(weights)
    return theirs, ours


@pytest.mark.parametrize("size", [224, 96])
def test_googlenet_outputs_equal_torchvision(googlenets, size):
    theirs, ours = (model.eval() for model in googlenets)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, theirs(images), rtol=1e-5, atol=1e-5)


def test_googlenet_learns_from_its_auxiliary_heads_too(googlenets):
    """Each auxiliary head has weight 0.3, as in section 5 of the paper."""
    theirs, ours = (model.train() for model in googlenets)
    for model in googlenets:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 3, 6, 3])
    logits, second, first = theirs(images)
    expected = F.cross_entropy(logits, labels) + 0.3 * (
        F.cross_entropy(first, labels) + F.cross_entropy(second, labels)
    )
    torch.testing.assert_close(ours(images, labels).loss, expected, rtol=1e-4, atol=1e-5)


def test_googlenet_of_small_images_keeps_their_resolution():
    model = GoogLeNetForImageClassification(GoogLeNetConfig(num_labels=2, width=1 / 8, small_images=True)).eval()
    states = model(torch.randn(1, 3, 32, 32), output_hidden_states=True).hidden_states
    assert [tuple(layer.shape[2:]) for layer in states] == [(32, 32)] * 3 + [(16, 16)] * 5 + [(8, 8)] * 2


def test_models_pushed_with_code_load_without_the_toolkit(tmp_path, monkeypatch):
    """As on a Hub: the folder has the file of the model and its imports, and the toolkit is not installed."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save_file({"images": images}, tmp_path / "images.safetensors")
    own = [case for case in CASES if case.auto_class == "AutoModelForImageClassification"]
    own = [case for case in own if case.config.model_type.startswith(PREFIX)]
    expected = {}
    for case in own:
        model = case.make()
        monkeypatch.setattr(case.model_class, "_auto_class", "AutoModelForImageClassification")
        monkeypatch.setattr(type(case.config), "_auto_class", "AutoConfig")
        model.save_pretrained(tmp_path / case.model_class.__name__)
        expected[case.model_class.__name__] = model(images).logits
    assert len(expected) >= 7
    code = f"""
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("toolkit", "tasks"):
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Without())
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification
images = load_file("images.safetensors")["images"]
found = {{}}
for name in {list(expected)}:
    model = AutoModelForImageClassification.from_pretrained(name, trust_remote_code=True).eval()
    found[name] = model(images).logits
save_file(found, "found.safetensors")
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, logits in load_file(tmp_path / "found.safetensors").items():
        torch.testing.assert_close(logits, expected.pop(name))
    assert not expected


def test_the_stem_of_the_fast_resnet_whitens_the_training_images():
    torch.manual_seed(0)
    rows = IMAGES.load_labelled("sample", "train")
    options, auto_class = ImageEncoderArguments(image_size=16), "AutoModelForImageClassification"
    model, processor = load_encoder("scratch:resnet-fast", auto_class, MODALITIES["image"], options, rows)
    pixels = [PixelProcessor(processor).resize(open_image(row["image"], row["name"])) for row in rows]
    images = PixelProcessor(processor).normalize(torch.tensor(np.stack(pixels)))
    half = model.fast_resnet.embedder.out_channels // 2
    with torch.no_grad():
        first, second = model.fast_resnet.embedder(images).split(half, dim=1)
    torch.testing.assert_close(first, -second)
    found = np.cov(first.transpose(0, 1).flatten(1).numpy())
    grey = found.diagonal() > 0.5  # these digits have no colour, and nothing differs in the directions of colour
    assert grey.sum() == 4
    assert found[np.ix_(grey, grey)] == pytest.approx(np.eye(4), abs=0.05)


def test_fast_resnet_kernels_start_as_the_identity_and_its_stem_is_frozen():
    torch.manual_seed(0)
    model = FastResNetForImageClassification(FastResNetConfig(num_labels=3)).train()
    for block, width in zip(model.fast_resnet.blocks, (24, 32, 128), strict=True):
        states = torch.randn(2, width, 5, 5)
        torch.testing.assert_close(block.convolutions[0](states)[:, :width], states)
    model(torch.randn(4, 3, 16, 16), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == ["fast_resnet.embedder.weight"]


@pytest.mark.parametrize("size", [2, 8, 33])
def test_the_fast_resnet_takes_images_of_any_size(size):
    """The stem removes one row and one column. Each block halves the size, rounded down, but not below one."""
    torch.manual_seed(0)
    model = FastResNetForImageClassification(FastResNetConfig(num_labels=3)).eval()
    images = torch.randn(2, 3, size, size + 1)
    with torch.no_grad():
        output = model(images, output_hidden_states=True)
        alone = model(images[1:]).logits
    height, width = size - 1, size
    expected = [(height, width)]
    for _ in range(3):
        is_single = 1 in (height, width)
        height, width = ((side + is_single) // 2 for side in (height, width))
        expected.append((height, width))
    maps = output.hidden_states
    assert [tuple(layer.shape[2:]) for layer in maps] == expected
    assert [layer.shape[1] for layer in maps] == [24, 32, 128, 128]
    with torch.no_grad():
        maximum = torch.stack([each.flatten(1).max(dim=1).values for each in maps[-1]])
        torch.testing.assert_close(output.logits, F.linear(maximum, model.classifier.weight, model.classifier.bias))
    torch.testing.assert_close(output.logits[1:], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(output.logits[0], output.logits[1])


def test_without_shortcuts_a_resnet_is_a_plain_network():
    torch.manual_seed(0)
    config = SmallImageResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[2, 1], shortcuts=False)
    model = SmallImageResNetModel(config).eval()
    states = images = torch.randn(2, 3, 12, 12)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 7  # none of them around others
    for convolution in convolutions:
        states = (convolution(states) / (1 + 1e-5) ** 0.5).relu()  # as a new normalisation is
    found = model(images).last_hidden_state
    torch.testing.assert_close(found, states, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_the_resnet_equals_transformers_except_for_its_stem(layer_type):
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": layer_type, "num_labels": 3}
    ours = SmallImageResNetForImageClassification(SmallImageResNetConfig(**sizes)).eval()
    theirs = ResNetForImageClassification(ResNetConfig(**sizes)).eval()
    rest = {name: value for name, value in ours.state_dict().items() if ".embedder." not in name}
    loading = theirs.load_state_dict(rest, strict=False)
    assert all(".embedder." in name for name in loading.missing_keys)
    assert not loading.unexpected_keys
    images = torch.randn(2, 3, 12, 12)
    theirs.resnet.embedder = ours.resnet.embedder
    assert torch.equal(ours(images).logits, theirs(images).logits)
    assert ours.resnet.embedder(images).shape[-2:] == (12, 12)
