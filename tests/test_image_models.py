"""LeNet-5 and GoogLeNet beside the paper's numbers and torchvision's network."""

import copy
import os
import subprocess
import sys

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from test_images import IMAGE_MODELS
from torch import nn
from torch.nn import functional as F

from toolkit.models.googlenet import GoogLeNetConfig, GoogLeNetForImageClassification
from toolkit.models.lenet import LeNetConfig, LeNetForImageClassification, LeNetModel


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


def test_lenet_begins_within_the_bounds_of_the_paper():
    model = LeNetForImageClassification(LeNetConfig())
    for layer, inputs in ((model.lenet.layers[0], 25), (model.lenet.layers[4], 400), (model.lenet.dense, 120)):
        assert 0.9 * 2.4 / inputs < layer.weight.abs().max() <= 2.4 / inputs


@pytest.fixture(scope="module")
def googlenets():
    """Torchvision's network and ours with its weights."""
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
def test_googlenet_gives_the_outputs_of_torchvision(googlenets, size):
    theirs, ours = (model.eval() for model in googlenets)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, theirs(images), rtol=1e-5, atol=1e-5)


def test_googlenet_learns_from_its_auxiliary_heads_too(googlenets):
    """At 0.3 each, as in section 5 of the paper."""
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


def test_copies_with_their_code_stand_alone(tmp_path, monkeypatch):
    """As on a Hub: the folder holds the model's file and what it needs, and there is no toolkit."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save_file({"images": images}, tmp_path / "images.safetensors")
    families = [cls for cls in IMAGE_MODELS if cls.__name__.endswith("ForImageClassification")]
    expected = {}
    for model_class in families:
        torch.manual_seed(0)
        config = copy.deepcopy(IMAGE_MODELS[model_class])
        if hasattr(config, "image_size"):
            config.image_size = 32
        model = model_class(config).eval()
        monkeypatch.setattr(model_class, "_auto_class", "AutoModelForImageClassification")
        monkeypatch.setattr(type(config), "_auto_class", "AutoConfig")
        model.save_pretrained(tmp_path / model_class.__name__)
        expected[model_class.__name__] = model(images).logits
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
for name in {[cls.__name__ for cls in families]}:
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
