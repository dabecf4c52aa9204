"""Explanations: each map compared with a calculation by hand, and the pictures."""

import types

import numpy as np
import pytest
import torch
from loopback import run_in_process
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, ViTConfig, ViTForImageClassification

from tasks import predict
from toolkit.data.image_decoding import open_image
from toolkit.data.image_files import IMAGES
from toolkit.explain import saliency


class Network(nn.Module):
    """Layers that end in logits."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values):
        return types.SimpleNamespace(logits=self.layers(pixel_values))


class Rectified(nn.Module):
    """A ReLU that is a function and not a module, as in most networks."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, states):
        return self.function(states)


def two_filters(rectify: nn.Module) -> Network:
    """One filter is excited by a column that is brighter than its left neighbour, the other by a dark row below a
    bright one; the second layer sees how much the one is above the other."""
    first, second = nn.Conv2d(1, 2, 2, bias=False), nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[[[-1.0, 2.0], [-1.0, 2.0]]], [[[3.0, 3.0], [-1.0, -1.0]]]]))
        second.weight.copy_(torch.tensor([1.0, -2.0]).view(1, 2, 1, 1))
    return Network(first, rectify, nn.MaxPool2d(2, 1), second, nn.Flatten())


IMAGE = [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0], [0.0, 0.0, 5.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("rectify", [nn.ReLU(inplace=True), Rectified(F.relu), Rectified(torch.Tensor.relu)])
def test_deconvolution_of_two_filters_gives_the_known_answer(rectify):
    pixels = torch.tensor(IMAGE)[None, None]
    network = two_filters(rectify)
    # The first filter is largest, 20, above the bright column, the second, 15, on its lower end.
    found = saliency.deconvolution(network, pixels, "layers.1", [0, 1])
    expected = torch.zeros(2, 1, 4, 4)
    expected[0, 0, 1:3, 1:3] = 20 * torch.tensor([[-1.0, 2.0], [-1.0, 2.0]])
    expected[1, 0, 2:4, 1:3] = 15 * torch.tensor([[3.0, 3.0], [-1.0, -1.0]])
    torch.testing.assert_close(found, expected)
    # The pooled maps lead back to the same maxima, of which the second counts against the output: it is dropped.
    maps = saliency.feature_maps(network, pixels)["layers.3"]
    signal = maps[0, 0].max()
    down, right = divmod(int(maps[0, 0].argmax()), maps.shape[3])
    pooled = saliency.feature_maps(network, pixels)["layers.1"][0, 0, down : down + 2, right : right + 2]
    down, right = (down + int(pooled.argmax()) // 2, right + int(pooled.argmax()) % 2)
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, down : down + 2, right : right + 2] = signal * torch.tensor([[-1.0, 2.0], [-1.0, 2.0]])
    torch.testing.assert_close(saliency.deconvolution(network, pixels, "layers.3", [0]), expected)


def test_deconvolution_passes_inactive_rectifiers():
    """As in the paper and unlike a gradient, only the sign of the backward signal counts."""
    network = Network(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Flatten())
    with torch.no_grad():
        for layer, weight, bias in ((network.layers[0], 1.0, -3.0), (network.layers[2], 2.0, 1.0)):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
    found = saliency.deconvolution(network, torch.ones(1, 1, 2, 2), "layers.2", [0])
    assert found.flatten().tolist() == [2, 0, 0, 0]
    assert nn.functional.relu(torch.tensor(-1.0)) == 0  # rectifiers are what they were


def test_the_occlusion_map_is_the_drop_of_the_logit():
    weights = torch.zeros(1, 1, 16, 16)
    weights[0, 0, 8:12, 4:8] = 1
    network = Network(nn.Flatten(), nn.Linear(256, 2))
    with torch.no_grad():
        network.layers[1].weight.copy_(torch.stack([weights.flatten(), -weights.flatten()]))
    found = saliency.occlusion_map(network, torch.ones(1, 1, 16, 16), 0)
    lost = np.zeros((16, 16, 2))
    for down in range(13):
        for right in range(13):
            covered = slice(down, down + 4), slice(right, right + 4)
            lost[covered] += float(weights[0, 0][covered].sum()), 1
    assert found == pytest.approx(lost[..., 0] / lost[..., 1], abs=1e-4)
    assert saliency.occlusion_map(network, torch.ones(1, 1, 16, 16), 1) == pytest.approx(-found, abs=1e-4)


def test_grad_cam_weighs_maps_by_their_gradients():
    torch.manual_seed(0)
    network = Network(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    pixels = torch.randn(1, 3, 8, 8)
    found = saliency.grad_cam(network, pixels, 1, "layers.1")
    maps = network.layers[:2](pixels)
    weights = network.layers[4].weight[1] / maps[0, 0].numel()
    expected = F.relu((maps * weights.view(1, 4, 1, 1)).sum(dim=1, keepdim=True))
    expected = F.interpolate(expected, (8, 8), mode="bilinear")[0, 0]
    assert found == pytest.approx(expected.detach().numpy(), abs=1e-5)


def test_rollout_follows_attention_through_the_layers():
    first = torch.tensor([[[0.2, 0.4, 0.4], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]])
    second = torch.tensor([[[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]).repeat(2, 1, 1)
    second[0, 0], second[1, 0] = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1])  # the mean is as before
    a, b = ((layer.mean(dim=0).numpy() + np.eye(3)) / 2 for layer in (first, second))
    reached = (b @ a)[0, 1:]
    found = saliency.attention_rollout([first, second], (1, 2))
    assert found.ravel() == pytest.approx(reached / reached.sum())


def test_attention_equals_the_attention_of_the_model():
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = ViTForImageClassification(ViTConfig(**sizes, intermediate_size=16, num_labels=3)).eval()
    pixels = torch.randn(1, 3, 16, 16)
    before = model(pixels).logits
    layers = saliency.attentions(model, pixels)
    assert [tuple(layer.shape) for layer in layers] == [(2, 17, 17)] * 2
    assert all(torch.allclose(layer.sum(dim=-1), torch.ones(2, 17)) for layer in layers)
    assert set(saliency.importance_maps(model, pixels, 0)) == {"occlusion", "attention"}
    assert torch.equal(model(pixels).logits, before)
    assert model.config._attn_implementation == "sdpa"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A picture of a digit, and small classifiers of digits: convolutional, transformer, perceptron."""
    root = tmp_path_factory.mktemp("explained")
    row = IMAGES.load_labelled("sample", "test")[0]
    open_image(row["image"], row["name"]).resize((20, 20)).save(root / "digit.png")
    for kind, encoder in (("resnet", "scratch:resnet-tiny"), ("vit", "scratch:vit-tiny"), ("mlp", "scratch:mlp-tiny")):
        flags = ["--encoder", encoder, "--data", "sample", "--output_dir", root / kind, "--image_size", "16"]
        done = run_in_process("finetune", "image", *flags, "--train_size", "60", "--max_steps", "10")
        assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize(
    ("kind", "flags", "files"),
    [
        ("resnet", [], {"kernels", "feature_maps", "deconvolution", "occlusion", "grad_cam"}),
        (
            "vit",
            ["--layers", "vit.embeddings.patch_embeddings.projection"],
            {"kernels", "feature_maps", "deconvolution", "occlusion", "attention"},
        ),
        ("mlp", ["--label", "3"], {"occlusion"}),
    ],
)
def test_the_pictures_are_written(kind, flags, files, shown, tmp_path):
    done = run_in_process("explain", shown / kind, shown / "digit.png", "--output_dir", tmp_path / "out", *flags)
    assert done.returncode == 0, done.stderr
    assert {file.stem for file in (tmp_path / "out").iterdir()} == files
    for file in (tmp_path / "out").iterdir():
        colours = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) > 8, file
    label, probability, name = done.stdout.strip().split("\t")
    (line,) = predict(str(shown / kind), [str(shown / "digit.png")])
    assert label == ("3" if flags[:1] == ["--label"] else line["predicted"])
    assert probability == f"{line['probabilities'][label]:.4f}"
    assert name == str(shown / "digit.png")


def test_layers_and_label_can_be_chosen(shown, tmp_path):
    flags = ["--output_dir", tmp_path / "out", "--label", "3", "--layers", "resnet.encoder.stages.0"]
    done = run_in_process("explain", shown / "resnet", shown / "digit.png", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3\t")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--label", "x"], "--label x: not a label"),
        (["--layers", "nowhere"], "--layers nowhere: no layer with maps, the main ones are resnet.encoder.stages.0"),
    ],
)
def test_missing_layers_and_labels_are_named(flags, message, shown, tmp_path):
    done = run_in_process("explain", shown / "resnet", shown / "digit.png", "--output_dir", tmp_path / "out", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_text_a_missing_image_and_an_image_for_a_tagger_are_refused(shown, tmp_path):
    BertConfig(architectures=["BertForTokenClassification"]).save_pretrained(tmp_path / "tagger")
    text = tmp_path / "text.png"
    text.write_text("no image")
    for folder, image, message in (
        (shown / "resnet", text, "this is no image"),
        (shown / "resnet", tmp_path / "nowhere.png", "no such file"),
        (tmp_path / "tagger", shown / "digit.png", "this is a binary file, expected text"),
    ):
        done = run_in_process("explain", folder, image, "--output_dir", tmp_path / "out")
        assert done.returncode == 2
        assert message in done.stderr
        assert not (tmp_path / "out").exists()
