"""The choice of pooling: vectors of a fixed size from images of any size."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from in_process import run_here
from PIL import Image
from transformers import AutoModel, ResNetConfig, TimmWrapperConfig, pipeline

from tasks import predict
from toolkit.data.image_decoding import open_image
from toolkit.data.image_files import IMAGES
from toolkit.modalities import MODALITIES
from toolkit.modalities.arguments import ImageEncoderArguments
from toolkit.modalities.augmentation import shift_image
from toolkit.modalities.pixels import map_images
from toolkit.models.fast_resnet import FastResNetConfig
from toolkit.models.googlenet import GoogLeNetConfig
from toolkit.models.lenet import LeNetConfig
from toolkit.models.pooling import GlobalPooling, PooledConfig, PooledForImageClassification, PooledModel
from toolkit.models.resnet import SmallImageResNetConfig
from toolkit.transfer.encoders import load_encoder

ENCODERS = {
    "fast_resnet": (FastResNetConfig(hidden_sizes=[4, 8]), 8),
    "googlenet": (GoogLeNetConfig(width=1 / 16, small_images=True), 64),
    "lenet": (LeNetConfig(), 120),
    "resnet": (SmallImageResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]), 8),
    "transformers": (ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"), 8),
    "timm": (TimmWrapperConfig(architecture="test_resnet", pretrained_cfg={"input_size": [3, 32, 32]}), 96),
}


def load_image_encoder(
    name: str, auto_class: str, image_size: int | None = None, rows=None, pooling: str | None = None
):
    options = ImageEncoderArguments(image_size=image_size, pooling=pooling)
    return load_encoder(name, auto_class, MODALITIES["image"], options, rows)


def pooled(kind: str, pooling: str, **fields) -> PooledConfig:
    encoder, hidden_size = ENCODERS[kind]
    return PooledConfig(encoder=encoder.to_dict(), hidden_size=hidden_size, pooling=pooling, **fields)


def test_each_pooling_equals_its_formula():
    maps = torch.tensor([[[[1.0, 2.0], [0.0, 4.0]], [[3.0, -3.0], [0.0, 0.0]]]])
    assert GlobalPooling("max")(maps).tolist() == [[4, 3]]
    assert GlobalPooling("average")(maps).tolist() == [[1.75, 0]]
    assert GlobalPooling("l2")(maps)[0].tolist() == pytest.approx([21**0.5 / 4, 18**0.5 / 4])
    mean = GlobalPooling("gem")
    assert mean(maps)[0].tolist() == pytest.approx([(73 / 4) ** (1 / 3), (27 / 4) ** (1 / 3)], rel=1e-4)
    with torch.no_grad():
        mean.power.fill_(1)
        assert mean(maps)[0].tolist() == pytest.approx([1.75, 0.75], rel=1e-4)
        mean.power.fill_(40)
        assert mean(maps)[0].tolist() == pytest.approx([4 / 4 ** (1 / 40), 3 / 4 ** (1 / 40)], rel=1e-4)


def test_the_gradient_of_the_maximum_goes_to_the_maximum_only():
    maps = torch.tensor([[[[1.0, 2.0, 0.5], [0.0, 4.0, 3.0]]]], requires_grad=True)
    (found,) = torch.autograd.grad(GlobalPooling("max")(maps).sum() * 5, maps)
    assert found.tolist() == [[[[0, 0, 0], [0, 5, 0]]]]


@pytest.mark.parametrize("kind", ["max", "average", "l2", "gem"])
def test_pooling_does_not_depend_on_the_order_of_positions(kind):
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    pooling = GlobalPooling(kind)
    found = pooling(maps)
    assert found.shape == (2, 3)
    torch.testing.assert_close(pooling(maps.flip(2)), found)
    torch.testing.assert_close(pooling(maps.transpose(2, 3)), found)
    if kind != "l2":  # the others lie between minimum and maximum and do not depend on the number of positions
        torch.testing.assert_close(pooling(maps.repeat(1, 1, 2, 1)), found)
        assert (found <= maps.amax(dim=(2, 3))).all()
        assert (found >= maps.amin(dim=(2, 3))).all()


def test_gradients_of_the_generalized_mean_equal_its_formula():
    """With m = mean(h^p): d/dh = h^(p-1) m^(1/p-1) / n, and d/dp = m^(1/p) (mean(h^p ln h) / (p m) - ln m / p²)."""
    pooling, values, p = GlobalPooling("gem"), np.array([1.0, 2.0, 0.5, 4.0]), 3.0
    maps = torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 2).requires_grad_()
    pooling(maps).sum().backward()
    mean = (values**p).mean()
    of_maps = values ** (p - 1) * mean ** (1 / p - 1) / 4
    of_power = mean ** (1 / p) * ((values**p * np.log(values)).mean() / (p * mean) - np.log(mean) / p**2)
    assert maps.grad.flatten().tolist() == pytest.approx(of_maps.tolist(), rel=1e-5)
    assert pooling.power.grad.item() == pytest.approx(of_power, rel=1e-4)


def test_the_exponent_of_the_generalized_mean_is_trained():
    model = PooledForImageClassification(pooled("resnet", "gem", num_labels=3)).train()
    assert model.pooled.pooling.power.tolist() == [3.0]
    model(torch.randn(4, 3, 12, 12), labels=torch.tensor([0, 1, 2, 1])).loss.backward()
    gradient = model.pooled.pooling.power.grad.item()
    assert gradient != 0
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert model.pooled.pooling.power.item() == pytest.approx(3 - 0.1 * gradient, rel=1e-6)


def test_in_training_an_image_alone_in_its_size_uses_the_running_statistics():
    torch.manual_seed(0)
    model = PooledModel(pooled("resnet", "average"))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    two, alone = torch.randn(2, 3, 20, 20), torch.randn(3, 12, 16)
    with torch.no_grad():
        before = {name: value.clone() for name, value in model.state_dict().items()}
        expected_two = model.train()(two).pooler_output
        after_two = {name: value.clone() for name, value in model.state_dict().items()}
        expected_alone = model.eval()(alone[None]).pooler_output
        model.train().load_state_dict(before)
        found = model([two[0], alone, two[1]]).pooler_output
    torch.testing.assert_close(found, torch.stack([expected_two[0], expected_alone[0], expected_two[1]]))
    assert all(norm.training for norm in norms)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, after_two[name], msg=f"{name}: the image alone does not count")


@pytest.mark.parametrize("pooling", ["max", "average", "l2", "gem"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_batch_of_images_of_three_sizes_equals_one_by_one(kind, pooling):
    torch.manual_seed(0)
    model = PooledForImageClassification(pooled(kind, pooling, num_labels=3)).eval()
    shapes = [(40, 36), (64, 64), (40, 36), (33, 50), (64, 64)]
    images = [torch.randn(3, *shape) for shape in shapes]
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]).logits for image in images])
        vectors = model.pooled(images).pooler_output
    torch.testing.assert_close(together.logits, alone, rtol=1e-4, atol=1e-5)
    assert vectors.shape == (5, ENCODERS[kind][1])
    assert not torch.allclose(vectors[0], vectors[2])


@pytest.mark.parametrize("kind", ENCODERS)
def test_one_step_of_training_then_save_and_load(kind, tmp_path):
    torch.manual_seed(0)
    model = PooledForImageClassification(pooled(kind, "gem", num_labels=3)).train()
    images = [torch.randn(3, *shape) for shape in [(40, 36), (48, 48)] * 2]
    model(images, labels=torch.tensor([0, 1, 2, 1])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.eval().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert type(loaded) is PooledModel
    with torch.no_grad():
        assert torch.equal(loaded(images).pooler_output, model.pooled(images).pooler_output)


def test_an_encoder_keeps_its_weights_under_another_pooling(tmp_path):
    torch.manual_seed(0)
    encoder = AutoModel.from_config(ENCODERS["resnet"][0]).eval()
    encoder.save_pretrained(tmp_path)
    rows = IMAGES.load_labelled("sample", "validation")
    load_image_encoder("scratch:resnet-tiny", "AutoModel", 16, rows)[1].save_pretrained(tmp_path)
    images = torch.randn(2, 3, 20, 20)
    maps = encoder(images).last_hidden_state
    l2, gem = (maps**2).sum(dim=(2, 3)).sqrt() / maps[0, 0].numel(), (maps**3).mean(dim=(2, 3)) ** (1 / 3)
    for pooling, expected in (
        ("average", maps.mean(dim=(2, 3))),
        ("max", maps.amax(dim=(2, 3))),
        ("l2", l2),
        ("gem", gem),
    ):
        model, _ = load_image_encoder(str(tmp_path), "AutoModelForImageClassification", pooling=pooling)
        found = model.eval().pooled(images).pooler_output
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(images).logits, model.classifier(found))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two of the sample's digits, as images of three sizes."""
    root = tmp_path_factory.mktemp("mixed")
    for split in ("train", "validation", "test"):
        chosen = [row for row in IMAGES.load_labelled("sample", split) if row["label"] in ("1", "7")][:60]
        for number, row in enumerate(chosen):
            size = [(16, 16), (20, 16), (18, 24)][number % 3]
            place = root / split / row["label"]
            place.mkdir(parents=True, exist_ok=True)
            open_image(row["image"], row["name"]).resize(size).save(place / f"{number:03d}.png")
    return root


@pytest.mark.parametrize("encoder", ["scratch:resnet-fast", "scratch:timm/test_resnet"])
def test_fine_tuning_on_images_of_mixed_sizes(encoder, mixed, tmp_path):
    flags = [
        "--encoder",
        encoder,
        "--data",
        mixed,
        "--output_dir",
        tmp_path / "out",
        "--pooling",
        "gem",
        "--keep_size",
    ]
    flags += [
        "--max_steps",
        "60",
        "--batch_size",
        "16",
        "--learning_rate",
        "1e-2",
        "--flip_at_test",
        "--shift_at_test",
    ]
    done = run_here("finetune", "image", *flags)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["metrics"]["accuracy"]["value"] > 0.8
    files = sorted(map(str, (mixed / "test").rglob("*.png")))
    together = [line["probabilities"]["7"] for line in predict(str(tmp_path / "out"), files)]
    alone = [line["probabilities"]["7"] for file in files[:6] for line in predict(str(tmp_path / "out"), [file])]
    assert together[:6] == pytest.approx(alone, abs=1e-4)
    turned = [np.asarray(Image.open(file)).shape for file in files]
    assert len(set(turned)) == 3


def test_the_pipeline_predicts_the_same_for_images_of_mixed_sizes(mixed, tmp_path):
    flags = ["--encoder", "scratch:resnet-tiny", "--data", mixed, "--output_dir", tmp_path, "--pooling", "max"]
    done = run_here("finetune", "image", *flags, "--keep_size", "--max_steps", "30", "--batch_size", "16")
    assert done.returncode == 0, done.stderr
    files = sorted(map(str, (mixed / "test").rglob("*.png")))[:9]
    answers = pipeline("image-classification", model=str(tmp_path))(files)
    lines = predict(str(tmp_path), files)
    assert [answer[0]["label"] for answer in answers] == [line["predicted"] for line in lines]
    found = [max(line["probabilities"].values()) for line in lines]
    assert found == pytest.approx([answer[0]["score"] for answer in answers], abs=1e-3)


def test_views_of_images_of_mixed_sizes_equal_one_by_one():
    torch.manual_seed(0)
    images = [torch.rand(3, 32, 40), torch.rand(3, 64, 32)]
    moved = map_images(images, partial(shift_image, by=1))
    assert [tuple(image.shape) for image in moved] == [(3, 32, 40), (3, 64, 32)]
    assert torch.equal(moved[0][:, 0, 1:], images[0][:, 1, :-1]), "the border is a reflection"
    assert torch.equal(moved[0][:, 1:, 1:], images[0][:, :-1, :-1])
    assert torch.equal(moved[1][:, 2:, 2:], images[1][:, :-2, :-2])
    assert torch.equal(map_images(torch.stack([images[0]] * 2), partial(shift_image, by=1))[1], moved[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["scratch:vit-tiny", "--pooling", "max"], "is no convolutional network"),
        (["scratch:mlp-tiny", "--pooling", "max"], "is no convolutional network"),
        (["scratch:timm/test_vit", "--pooling", "max"], "is no convolutional network"),
        (["scratch:resnet-tiny", "--keep_size"], "goes with --pooling"),
        (["scratch:resnet-tiny", "--pooling", "max", "--keep_size", "--image_size", "16"], "does not go with"),
        (["scratch:lenet-5", "--pooling", "max", "--keep_size"], "16 × 16 pixels, too small"),
    ],
)
def test_contradicting_flags_end_with_one_line(flags, message, mixed, tmp_path):
    done = run_here("finetune", "image", "--data", mixed, "--output_dir", tmp_path / "out", "--encoder", *flags)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
