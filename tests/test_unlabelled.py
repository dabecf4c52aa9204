"""Pretraining on images without labels: the losses compared with calculations by hand, the views, the encoders."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from in_process import run_here
from torchvision.transforms.v2 import functional as v2
from transformers import AutoModel, AutoModelForImageClassification, ViTConfig, ViTModel

from toolkit.data.image_decoding import open_image
from toolkit.data.image_files import IMAGES
from toolkit.modalities import MODALITIES
from toolkit.modalities.arguments import ImageEncoderArguments
from toolkit.modalities.augmentation import Augmentation, ContrastiveViews, adjust_colors
from toolkit.modalities.pixels import PixelProcessor, encode_images
from toolkit.models.simclr import SimCLRForPreTraining, nt_xent_loss
from toolkit.pretraining.vit_mae import CollateMasked, masked_autoencoder, without_decoder
from toolkit.training.sampler import SampleKey
from toolkit.transfer.encoders import load_encoder


def load_image_encoder(name: str, auto_class: str, image_size: int | None = None, rows=None):
    options = ImageEncoderArguments(image_size=image_size)
    return load_encoder(name, auto_class, MODALITIES["image"], options, rows)


def digits(count: int, size: int = 16) -> torch.Tensor:
    rows = IMAGES.load_labelled("sample", "train").select(range(count))
    images = [open_image(row["image"], row["name"]).resize((size, size)) for row in rows]
    return torch.tensor(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


def test_the_contrastive_loss_is_equation_1_of_the_paper():
    rng = np.random.default_rng(0)
    projections, temperature = rng.normal(size=(6, 5)), 0.3
    losses = []
    for i in range(6):
        likeness = [a @ projections[i] / np.linalg.norm(a) / np.linalg.norm(projections[i]) for a in projections]
        others = sum(np.exp(likeness[k] / temperature) for k in range(6) if k != i)
        losses.append(-np.log(np.exp(likeness[(i + 3) % 6] / temperature) / others))
    found = nt_xent_loss(torch.from_numpy(projections), temperature)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_two_views_differ_and_depend_on_the_sample_key_only():
    pixels = digits(4)
    keys = [SampleKey(7, 1, example) for example in range(4)]
    views = ContrastiveViews(seed=5)(pixels, keys)
    assert views.shape == (8, 3, 16, 16)
    torch.testing.assert_close(views[[2, 3, 6, 7]], ContrastiveViews(seed=5)(pixels[2:], keys[2:]))
    assert not torch.allclose(views[:4], views[4:], atol=10)
    assert not torch.allclose(
        views, ContrastiveViews(seed=5)(pixels, [replace(key, epoch=2) for key in keys]), atol=10
    )
    assert views.min() >= 0
    assert views.max() <= 255


def test_a_view_of_the_whole_image_is_the_image_or_its_mirror_image():
    pixels = digits(40)
    keys = [SampleKey(0, 0, example) for example in range(40)]
    changes = ContrastiveViews(seed=0, color_strength=0)
    chances = torch.full((11, 40), 0.5)
    chances[0] = 1.0  # all of it
    chances[4, ::2] = 0.0  # every second one turned
    chances[6] = 0.9  # none grey
    found = changes._view(pixels.float(), *chances)
    torch.testing.assert_close(found[1::2], pixels[1::2].float(), rtol=0, atol=0.01)
    torch.testing.assert_close(found[::2], pixels[::2].flip(-1).float(), rtol=0, atol=0.01)
    drawn = changes(torch.full_like(pixels, 77), keys)
    torch.testing.assert_close(drawn, torch.full_like(drawn, 77.0), rtol=0, atol=0.1)


def test_a_view_of_a_quarter_enlarges_that_quarter():
    pixels = digits(1, 16).float()
    pixels[0, :, 8:, 8:] = torch.arange(64.0).view(8, 8)
    chances = torch.full((11, 1), 0.5)
    chances[0], chances[2], chances[3], chances[6] = (0.25 - 0.2) / 0.8, 1.0, 1.0, 0.9  # down, to the right, in colour
    found = ContrastiveViews(seed=0, color_strength=0)._view(pixels, *chances)
    expected = torch.nn.functional.interpolate(pixels[..., 8:, 8:], (16, 16), mode="bilinear")
    torch.testing.assert_close(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=0, atol=0.5)


def test_colour_jitter_equals_torchvision():
    torch.manual_seed(0)
    pixels = 60 + 80 * torch.rand(3, 3, 8, 8)
    same, none = torch.ones(3), torch.zeros(3)
    factors = torch.tensor([0.7, 1.0, 1.3])
    for given, change in (
        ((factors, same, same, none), v2.adjust_brightness),
        ((same, factors, same, none), v2.adjust_contrast),
        ((same, same, factors, none), v2.adjust_saturation),
    ):
        expected = [255 * change(image / 255, float(factor)) for image, factor in zip(pixels, factors, strict=True)]
        torch.testing.assert_close(adjust_colors(pixels, *given), torch.stack(expected), rtol=0, atol=0.5)
    grey = adjust_colors(pixels, same, same, none, none)
    torch.testing.assert_close(grey, v2.rgb_to_grayscale(pixels, 3), rtol=0, atol=0.5)
    thirds = adjust_colors(pixels, same, same, same, torch.full((3,), 1 / 3))
    twice = adjust_colors(thirds, same, same, same, torch.full((3,), 1 / 3))
    thrice = adjust_colors(twice, same, same, same, torch.full((3,), 1 / 3))
    assert not torch.allclose(thirds, pixels, atol=5)
    torch.testing.assert_close(thrice, pixels, rtol=0, atol=0.5)  # a whole turn


def test_vit_mae_masks_three_quarters_of_the_patches_in_pretraining_only():
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=16, patch_size=4, hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=32
    )
    model = masked_autoencoder(config, 0.75, 1).eval()
    rows = IMAGES.load_labelled("sample", "train").select(range(5))
    processor = load_image_encoder("scratch:vit-tiny", "AutoModel", 16, rows)[1]
    collate = CollateMasked(processor, Augmentation((), 3), 16)
    features = encode_images(rows, processor, {})
    keys = [SampleKey(0, 1, index) for index in range(5)]
    batch = collate(list(features), keys)
    again = collate(list(features.select([3])), keys[3:4])
    assert torch.equal(batch["noise"][3:4], again["noise"])
    with torch.no_grad():
        outputs = model(batch["pixel_values"], noise=batch["noise"])
        assert outputs.mask.sum(dim=1).tolist() == [12] * 5
        assert len({tuple(mask.tolist()) for mask in outputs.mask}) == 5
        # The loss by hand: hidden patches alone, each normalised by its own mean and deviation.
        patches = (
            batch["pixel_values"].unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        )
        patches = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        errors = ((outputs.logits - patches) ** 2).mean(dim=-1)
        assert float(outputs.loss) == pytest.approx(float(errors[outputs.mask == 1].mean()), rel=1e-4)
        model.config.mask_ratio = 0.0
        in_order = torch.arange(16.0).repeat(5, 1)
        seen = model.vit(batch["pixel_values"], noise=in_order).last_hidden_state
        encoder = without_decoder(model).eval()
        torch.testing.assert_close(encoder(batch["pixel_values"]).last_hidden_state, seen)
    assert type(encoder) is ViTModel


@pytest.fixture(scope="module")
def folder_without_labels(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for index, row in enumerate(IMAGES.load_labelled("sample", "train").select(range(120))):
        open_image(row["image"], row["name"]).resize((16, 16)).save(root / f"{index:03d}.png")
    return root


METHODS = {"simclr": ["--preset", "resnet-fast"], "vit-mae": ["--preset", "vit-tiny"]}
WITHOUT_POOLER = {"simclr": {}, "vit-mae": {"add_pooling_layer": False}}  # which a masked autoencoder does not train


@pytest.mark.parametrize("method", METHODS)
def test_encoders_pretrained_without_labels_can_be_fine_tuned(method, folder_without_labels, tmp_path):
    flags = ["--corpus", folder_without_labels, "--image_size", "16", "--batch_size", "32", "--learning_rate", "3e-3"]
    run = [*METHODS[method], *flags, "--validation_fraction", "0.2", "--max_steps", "24", "--save_steps", "12"]
    done = run_here("pretrain", method, *run, "--output_dir", tmp_path / "encoder")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "encoder" / "results.json").read_text())
    assert record["n"] == {"simclr": 48, "vit-mae": 24}[method]  # of the images held out, two views each
    log = [json.loads(line) for line in (tmp_path / "encoder" / "train_log.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in log if "validation_loss" in line]
    assert losses[-1] < losses[0]
    model = AutoModel.from_pretrained(tmp_path / "encoder", **WITHOUT_POOLER[method])
    assert record["parameters"] == model.num_parameters()
    run_here("pretrain", method, *run, "--output_dir", tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again", **WITHOUT_POOLER[method]).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    head = ["--data", "sample", "--train_size", "100", "--freeze", "--output_dir", tmp_path / "probe"]
    done = run_here("finetune", "image", "--encoder", tmp_path / "encoder", *head)
    assert done.returncode == 0, done.stderr
    probe = AutoModelForImageClassification.from_pretrained(tmp_path / "probe").base_model.state_dict()
    assert all(torch.equal(value, probe[name]) for name, value in model.state_dict().items())
    if method == "simclr":
        assert json.loads((tmp_path / "probe" / "results.json").read_text())["metrics"]["accuracy"]["value"] > 0.4


def test_the_simclr_checkpoint_is_the_plain_encoder(tmp_path):
    torch.manual_seed(0)
    rows = IMAGES.open_unlabelled("sample").load("validation")
    encoder, processor = load_image_encoder("scratch:resnet-fast", "AutoModel", 16, rows)
    model = SimCLRForPreTraining.from_encoder(
        encoder, {"pixel_values": torch.zeros(1, 3, 16, 16)}, projection_size=8, temperature=0.5
    ).eval()
    images = PixelProcessor(processor).normalize(digits(4))
    with torch.no_grad():
        projections = model.projection(encoder.eval()(images).pooler_output)
        assert float(model(pixel_values=images).loss) == pytest.approx(float(nt_xent_loss(projections, 0.5)), rel=1e-6)
        model.save_pretrained(tmp_path)
        loaded = SimCLRForPreTraining.from_pretrained(tmp_path).eval()
        assert torch.equal(loaded(pixel_values=images).loss, model(pixel_values=images).loss)


def test_images_without_labels_are_found(folder_without_labels, tmp_path):
    assert len(IMAGES.open_unlabelled(str(folder_without_labels)).load(None)) == 120
    assert IMAGES.open_unlabelled("sample").load("test").column_names == ["image", "name"]
    (tmp_path / "list.csv").write_text(
        "image\n" + "\n".join(map(str, sorted(folder_without_labels.glob("*.png"))[:7]))
    )
    assert len(IMAGES.open_unlabelled(str(tmp_path / "list.csv")).load(None)) == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["simclr", "--temperature", "0"], "--temperature 0"),
        (["simclr", "--preset", "resnet-nano"], "unknown preset 'resnet-nano'"),
        (["simclr", "--smallest_part", "1.5"], "a fraction between 0 and 1"),
        (["vit-mae", "--preset", "resnet-tiny"], "expected one of vit-tiny"),
        (["vit-mae", "--mask_ratio", "1"], "--mask_ratio 1"),
    ],
)
def test_wrong_flags_end_in_one_line(flags, message, tmp_path):
    done = run_here("pretrain", *flags, "--corpus", "sample", "--output_dir", tmp_path / "out", "--max_steps", "1")
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
