"""Episodic training: the loss by hand, the images of an episode, and the files of a run."""

import json

import numpy as np
import pytest
import torch
from conftest import run_toolkit, shelf
from in_process import run_here
from test_faults import kill
from test_training import losses
from torch.nn import functional as F

from toolkit.data.image_files import IMAGES
from toolkit.modalities.pixels import new_image_processor
from toolkit.models.families import presets
from toolkit.models.prototypical import PrototypicalConfig, PrototypicalForPreTraining
from toolkit.pretraining.prototypical import (
    CollateEpisodes,
    images_of_classes,
    is_nearest,
    rows_of_classes,
)
from toolkit.pretraining.run import held_out_accuracy
from toolkit.training.distributed import make_accelerator
from toolkit.training.sampler import SampleKey


@pytest.fixture(scope="module")
def digits():
    rows = IMAGES.load_labelled("sample").select(range(300))
    processor = new_image_processor(16, rows)
    return processor, images_of_classes(rows, processor, 10)


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = presets()["resnet-tiny"].config(16)
    return PrototypicalForPreTraining(PrototypicalConfig(encoder=config.to_dict(), shots=2)).eval()


def test_the_loss_equals_a_calculation_by_hand(digits, model):
    processor, images = digits
    collate = CollateEpisodes(processor, images, per_class=5, seed=0)
    rows = list(rows_of_classes(["3", "5", "8"], rotations=False))
    batch = collate(rows, [SampleKey(0, 0, place) for place in range(3)])
    assert batch["pixel_values"].shape == (3, 5, 3, 16, 16)
    assert (batch["num_targets"], batch["num_items"]) == (3, 15)
    with torch.no_grad():
        features = [model.encoder(of_class).pooler_output.flatten(1) for of_class in batch["pixel_values"]]
        losses, first_logits = [], []
        for labelled in ([0, 1], [1, 2], [2, 3], [3, 4], [4, 0]):
            prototypes = torch.stack([of_class[labelled].mean(dim=0) for of_class in features])
            for label, of_class in enumerate(features):
                for place in sorted({0, 1, 2, 3, 4} - set(labelled)):
                    logits = -(of_class[place] - prototypes).square().sum(dim=1)
                    losses.append(float(F.cross_entropy(logits[None], torch.tensor([label]))))
                    first_logits += [logits] if labelled == [0, 1] else []
        output = model(batch["pixel_values"])
        assert float(output.loss) == pytest.approx(np.mean(losses), rel=1e-4)
        torch.testing.assert_close(output.logits, torch.stack(first_logits), rtol=1e-3, atol=1e-4)


def test_episodes_depend_on_the_sample_key_and_rotations_add_classes(digits):
    processor, images = digits
    collate = CollateEpisodes(processor, images, per_class=4, seed=0)
    rows = rows_of_classes(["1", "7"], rotations=True)
    assert len(rows) == 8
    upright, turned = rows[1], next(row for row in rows if row["class"] == "7" and row["turns"] == 1)
    first, other_epoch, other_class = SampleKey(0, 0, 1), SampleKey(9, 3, 1), SampleKey(0, 0, 5)
    pixels = collate([upright], [first])["pixel_values"][0]
    torch.testing.assert_close(collate([turned], [first])["pixel_values"][0], torch.rot90(pixels, 1, dims=(2, 3)))
    assert (collate([upright], [first])["pixel_values"][0] == pixels).all()
    for key in (other_epoch, other_class):
        assert (collate([upright], [key])["pixel_values"][0] != pixels).any()


def test_accuracy_equals_nearest_prototype_by_hand(digits, model):
    processor, images = digits
    collate = CollateEpisodes(processor, images, per_class=5, seed=0)
    rows = rows_of_classes(sorted(images), rotations=False)
    accuracy = held_out_accuracy(model, rows, collate, 5, make_accelerator(), is_nearest)
    hits = []
    for start in (0, 5):
        keys = [SampleKey(0, 2**31, place) for place in range(start, start + 5)]
        with torch.no_grad():
            logits = model(collate([rows[place] for place in range(start, start + 5)], keys)["pixel_values"]).logits
        hits += (logits.argmax(dim=1) == torch.arange(5).repeat_interleave(3)).tolist()
    assert accuracy["value"] == pytest.approx(np.mean(hits))


def test_processes_share_one_episode(tmp_path):
    """Three episodes of five classes, and one of a single class, of which one of two processes has nothing.

    The pooler of a vision transformer, which episodes do not use, gets no gradient.
    """
    flags = ["pretrain", "prototypical", "--corpus", "sample", "--preset", "vit-tiny", "--image_size", "16"]
    flags += ["--ways", "5", "--queries", "2", "--num_train_epochs", "2", "--logging_steps", "1", "--output_dir"]
    for num_processes in (1, 2):
        folder = tmp_path / str(num_processes)
        done = run_toolkit(*flags, folder, num_processes=num_processes)
        assert done.returncode == 0, done.stderr
    expected = losses(tmp_path / "1")
    assert [loss > 0.1 for loss in expected] == [True, True, True, False]
    assert losses(tmp_path / "2") == pytest.approx(expected, abs=1e-5)
    assert losses(tmp_path / "2", "grad_norm") == pytest.approx(losses(tmp_path / "1", "grad_norm"), rel=1e-3)


FLAGS = ["--preset", "resnet-tiny", "--image_size", "8", "--ways", "4", "--save_steps", "3", "--rotations"]


@pytest.mark.slow
def test_resuming_after_a_kill_gives_the_same_weights(tmp_path):
    flags = ["pretrain", "prototypical", "--corpus", "sample", *FLAGS, "--augment", "shift", "--max_steps", "6"]
    done = run_here(*flags, "--output_dir", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    plan = [["after checkpoint rename", 1], ["before the record", 1]]
    done = kill(plan, *flags, "--output_dir", tmp_path / "killed")
    assert "kills: 2" in done.stdout
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ways", "1"], "--ways 1"),
        (["--queries", "500"], "fewer than the 501 that --shots and --queries ask"),
        (["--validation_fraction", "0.95"], "too few to learn from some and hold out others"),
    ],
)
def test_bad_input_ends_with_one_line(flags, message, tmp_path):
    done = run_here(
        *(
            "pretrain",
            "prototypical",
            "--corpus",
            "sample",
            "--output_dir",
            tmp_path / "out",
            "--max_steps",
            "1",
            *flags,
        )
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_unseen_characters_are_classified(tmp_path):
    data = shelf("omniglot")
    flags = ["--corpus", data, "--split", "background", "--label_column", "character", "--rotations"]
    flags += ["--image_size", "28", "--max_steps", "150", "--output_dir", tmp_path / "encoder"]
    done = run_here("pretrain", "prototypical", *flags)
    assert done.returncode == 0, done.stderr
    accuracies = {}
    for name, more in (("all", []), ("within", ["--within", "alphabet"])):
        flags = ["--encoder", tmp_path / "encoder", "--data", data, "--split", "evaluation", "--shots", "1"]
        flags += ["--label_column", "character", "--ways", "20", "--episodes", "200", *more]
        done = run_here("fewshot", "evaluate", *flags, "--output_dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / name / "results.json").read_text())
        accuracies[name] = record["metrics"]["accuracy"]["value"]
        assert record["classes"] == 659
    assert 0.4 < accuracies["within"] < accuracies["all"]
