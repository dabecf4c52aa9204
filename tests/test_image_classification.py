"""The image task: every kind of network, with and without pretraining, and its predictions."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import shelf
from in_process import run_here
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, ResNetConfig, pipeline

from tasks import finetune, predict
from toolkit import pretrain
from toolkit.data.image_decoding import open_image
from toolkit.data.image_files import IMAGES
from toolkit.metrics.intervals import bootstrap_auc, bootstrap_mean
from toolkit.modalities import MODALITIES
from toolkit.modalities.arguments import ImageEncoderArguments
from toolkit.modalities.losses import set_loss, weights_of_classes
from toolkit.transfer.encoders import layer_depths, load_encoder
from toolkit.transfer.linear_probe import estimate_batch_norm, fit_head, head_of

ENCODERS = {
    "resnet": ["scratch:resnet-tiny", "--learning_rate", "1e-2"],
    "fast": ["scratch:resnet-fast", "--learning_rate", "1e-2"],
    "googlenet": ["scratch:googlenet-mini", "--learning_rate", "1e-2"],
    "lenet": ["scratch:lenet-5", "--learning_rate", "3e-3", "--image_size", "32"],
    "vit": ["scratch:vit-tiny", "--learning_rate", "1e-3"],
    "mlp": ["scratch:mlp-tiny", "--learning_rate", "1e-3"],
    "timm": ["scratch:timm/test_resnet", "--learning_rate", "1e-2"],
}


def save_digits(folder, split: str, names=("1", "7"), most: int = 60) -> None:
    """Digits of the sample as class folders."""
    counts = dict.fromkeys(names, 0)
    for row in IMAGES.load_labelled("sample", split):
        if row["label"] in names and counts[row["label"]] < most:
            counts[row["label"]] += 1
            place = folder / split / row["label"]
            place.mkdir(parents=True, exist_ok=True)
            open_image(row["image"], row["name"]).save(place / f"{counts[row['label']]:03d}.png")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    for split in ("train", "validation", "test"):
        save_digits(root, split)
    return root


@pytest.fixture(scope="module")
def classifiers(digits, tmp_path_factory):
    """A classifier of two digits of each kind of network."""
    root = tmp_path_factory.mktemp("classifiers")
    for kind, (encoder, *own_flags) in ENCODERS.items():
        flags = ["--encoder", encoder, "--data", digits, "--output_dir", root / kind, "--image_size", "16", *own_flags]
        done = run_here("finetune", "image", *flags, "--max_steps", "40", "--batch_size", "16")
        assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("kind", ENCODERS)
def test_metrics_equal_scikit_learn_on_the_predictions(classifiers, kind):
    record = json.loads((classifiers / kind / "results.json").read_text())
    lines = [json.loads(line) for line in (classifiers / kind / "predictions.jsonl").read_text().splitlines()]
    right, predicted = [line["label"] for line in lines], [line["predicted"] for line in lines]
    metrics = record["metrics"]
    assert record["n"] == len(lines)
    assert metrics["accuracy"]["value"] == pytest.approx(accuracy_score(right, predicted))
    assert metrics["accuracy"]["value"] > 0.9
    assert metrics["macro_f1"]["value"] == pytest.approx(f1_score(right, predicted, average="macro"))
    scores = [line["probabilities"]["7"] for line in lines]
    assert metrics["roc_auc"]["value"] == pytest.approx(roc_auc_score(np.array(right) == "7", scores), abs=2e-3)


@pytest.mark.parametrize("kind", ENCODERS)
def test_score_predict_and_the_pipeline_agree(classifiers, digits, kind, tmp_path):
    folder = classifiers / kind
    done = run_here("score", folder, "--data", digits, "--output_file", tmp_path / "score.json")
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "results.json").read_text())
    assert json.loads((tmp_path / "score.json").read_text())["metrics"] == record["metrics"]
    files = sorted(map(str, (digits / "test").rglob("*.png")))[::7]
    done = run_here("predict", folder, *files)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[2] for row in rows] == files
    answers = pipeline("image-classification", model=str(folder))(files)
    assert [row[0] for row in rows] == [answer[0]["label"] for answer in answers]
    assert [float(row[1]) for row in rows] == pytest.approx([answer[0]["score"] for answer in answers], abs=1e-3)


def test_a_folder_of_images_is_labelled(classifiers, digits):
    lines = predict(str(classifiers / "resnet"), [str(digits / "test" / "7")])
    assert len(lines) == len(list((digits / "test" / "7").iterdir()))
    assert all(set(line) == {"image", "predicted", "probabilities"} for line in lines)
    assert np.mean([line["predicted"] == "7" for line in lines]) > 0.8


def test_a_pretrained_resnet_is_a_classifier_and_an_encoder(digits, tmp_path):
    flags = ["--preset", "resnet-tiny", "--image_size", "16", "--max_steps", "60", "--learning_rate", "1e-2"]
    done = run_here("pretrain", "resnet", "--corpus", "sample", "--output_dir", tmp_path / "encoder", *flags)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "encoder" / "results.json").read_text())["metrics"]
    assert metrics["loss"]["value"] < 2.0
    rows = IMAGES.load_labelled("sample", "validation")
    images = [open_image(row["image"], row["name"]) for row in rows]
    answers = pipeline("image-classification", model=str(tmp_path / "encoder"))(images, top_k=1)
    right = np.mean([answer[0]["label"] == label for answer, label in zip(answers, rows["label"], strict=True)])
    assert metrics["accuracy"]["value"] == pytest.approx(right)
    assert f", accuracy {right:.3f} [" in done.stdout
    record = finetune(
        "image", encoder=str(tmp_path / "encoder"), data=str(digits), output_dir=str(tmp_path / "probe"), freeze=True
    )
    assert record["metrics"]["accuracy"]["value"] > 0.9
    before = AutoModelForImageClassification.from_pretrained(tmp_path / "encoder").state_dict()
    after = AutoModelForImageClassification.from_pretrained(tmp_path / "probe").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("resnet."))


def test_fine_tuning_on_labels_unseen_in_pretraining(tmp_path):
    flags = ["--preset", "resnet-tiny", "--image_size", "16", "--max_steps", "20", "--labels", "0", "1", "2"]
    done = run_here("pretrain", "resnet", "--corpus", "sample", "--output_dir", tmp_path / "encoder", *flags)
    assert done.returncode == 0, done.stderr
    assert set(AutoConfig.from_pretrained(tmp_path / "encoder").id2label.values()) == {"0", "1", "2"}
    flags = ["--data", "sample", "--freeze", "--labels", "8", "9"]
    done = run_here("finetune", "image", "--encoder", tmp_path / "encoder", *flags, "--output_dir", tmp_path / "probe")
    assert done.returncode == 0, done.stderr
    test_labels = IMAGES.load_labelled("sample", "test")["label"][:]
    record = json.loads((tmp_path / "probe" / "results.json").read_text())
    assert record["n"] == test_labels.count("8") + test_labels.count("9")
    assert record["metrics"]["accuracy"]["value"] > 0.8
    flags = ["--data", "sample", "--labels", "8", "nine"]
    done = run_here("score", tmp_path / "probe", *flags)
    assert done.returncode == 2
    assert "--labels nine: not in sample, where there are 0, 1, 2, 3" in done.stderr


def test_a_fitted_head_predicts_like_scikit_learn():
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 4))
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(90, 5)) * [1, 5, 1, 1, 1] + 3, rng.integers(0, 3, 90)
    inputs[:, 0] += 2 * labels
    best = fit_head(model, inputs[:60], labels[:60], inputs[60:], labels[60:]).C
    deviation = inputs[:60].std(axis=0)
    probe = LogisticRegression(C=best, max_iter=1000).fit(inputs[:60] / deviation, labels[:60])
    found = head_of(model)(torch.tensor(inputs[60:], dtype=torch.float32)).softmax(-1).detach().numpy()
    assert found[:, :3] == pytest.approx(probe.predict_proba(inputs[60:] / deviation), abs=1e-2)
    assert found[:, 3].max() < 1e-6, "a label without an example"


def test_a_frozen_random_network_is_normalized_with_the_training_images():
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(
        ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [{"pixel_values": 5 + 3 * torch.randn(8, 3, 16, 16)} for _ in range(2)]
    estimate_batch_norm(model, [*batches, {"pixel_values": torch.zeros(1, 3, 16, 16)}])
    first = model.resnet.embedder.embedder
    outputs = [first.convolution(batch["pixel_values"]) for batch in batches]
    means = torch.stack([output.mean(dim=(0, 2, 3)) for output in outputs]).mean(dim=0)
    variances = torch.stack([output.var(dim=(0, 2, 3)) for output in outputs]).mean(dim=0)
    torch.testing.assert_close(first.normalization.running_mean, means)
    torch.testing.assert_close(first.normalization.running_var, variances)
    learned = dict(model.named_parameters())
    assert all(torch.equal(learned[name], before[name]) for name in learned)
    assert not model.training
    assert first.normalization.momentum == 0.1


def test_the_threshold_is_the_best_on_validation_images(digits, tmp_path):
    flags = {"data": str(digits), "freeze": True, "flip_at_test": True, "choose_threshold": True}
    record = finetune("image", encoder="scratch:mlp-tiny", output_dir=str(tmp_path / "probe"), image_size=8, **flags)
    config = json.loads((tmp_path / "probe" / "config.json").read_text())
    assert config["flip_at_test"] is True
    files = sorted(map(str, (digits / "validation").rglob("*.png")))
    lines = predict(str(tmp_path / "probe"), files)
    scores = np.array([line["probabilities"]["7"] for line in lines])
    right = np.array(["/7/" in file for file in files])
    assert [line["predicted"] == "7" for line in lines] == (scores >= config["threshold"]).tolist()
    reached = ((scores >= config["threshold"]) == right).mean()
    assert reached == pytest.approx(record["validation_metrics"]["accuracy"]["value"])
    assert all(((scores >= level) == right).mean() <= reached for level in [0, *(scores + 1e-5)])


def test_flip_at_test_gives_mirrored_images_the_same_prediction(digits, tmp_path):
    flags = {"data": str(digits), "flip_at_test": True, "max_steps": 5}
    finetune("image", encoder="scratch:resnet-tiny", output_dir=str(tmp_path / "model"), image_size=16, **flags)
    file = next((digits / "test" / "7").iterdir())
    mirrored = tmp_path / "mirrored.png"
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    one, other = predict(str(tmp_path / "model"), [str(file), str(mirrored)])
    assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-3)


def test_shift_at_test_averages_over_shifted_images(digits, tmp_path):
    flags = {"data": str(digits), "shift_at_test": True, "max_steps": 5}
    finetune("image", encoder="scratch:resnet-tiny", output_dir=str(tmp_path / "model"), image_size=32, **flags)
    file = next((digits / "test" / "7").iterdir())
    (line,) = predict(str(tmp_path / "model"), [str(file)])
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    pixels = processor(Image.open(file), return_tensors="np")["pixel_values"]
    wide = np.pad(pixels, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    views = [wide[:, :, i : i + 32, i : i + 32] for i in range(3)]
    with torch.inference_mode():
        logits = torch.cat([model(torch.tensor(view)).logits for view in views])
    assert (logits[0] - logits[2]).abs().max() > 1e-3
    expected = logits.mean(dim=0).softmax(-1).tolist()
    assert list(line["probabilities"].values()) == pytest.approx(expected, abs=1e-4)


def test_broken_images_end_the_run_or_are_left_out_and_named(digits, tmp_path):
    save_digits(tmp_path / "data", "train", most=12)
    (tmp_path / "data" / "train" / "1" / "broken.png").write_text("not an image")
    flags = ["--encoder", "scratch:mlp-tiny", "--data", tmp_path / "data", "--max_steps", "2", "--image_size", "8"]
    done = run_here("finetune", "image", *flags, "--output_dir", tmp_path / "stopped")
    assert done.returncode == 2
    assert "broken.png: this is no image" in done.stderr
    assert not (tmp_path / "stopped").exists()
    done = run_here("finetune", "image", *flags, "--output_dir", tmp_path / "model", "--skip_broken")
    assert done.returncode == 0, done.stderr
    assert "left out: " in done.stderr
    assert "broken.png" in done.stderr


def test_comparison_reports_the_gain_of_pretraining(digits, tmp_path):
    flags = ["--preset", "resnet-tiny", "--image_size", "16", "--max_steps", "80", "--learning_rate", "1e-2"]
    done = run_here("pretrain", "resnet", "--corpus", "sample", "--output_dir", tmp_path / "encoder", *flags)
    assert done.returncode == 0, done.stderr
    flags = ["--encoders", tmp_path / "encoder", "--data", digits, "--train_sizes", "2", "--per_class", "--baseline"]
    flags += ["--seeds", "2", "--learning_rates", "3e-3", "--max_steps", "20", "--batch_size", "4"]
    done = run_here("compare", "--task", "image", *flags, "--output_dir", tmp_path / "comparison")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "comparison" / "results.json").read_text())
    (budget,) = record["encoders"][0]["budgets"]
    assert budget["train_size"] == 4
    assert budget["gain"]["value"] == pytest.approx(
        budget["pretrained"]["accuracy"]["value"] - budget["scratch"]["accuracy"]["value"]
    )
    assert 0.5 < record["baseline"]["budgets"][0]["accuracy"]["value"] <= 1
    more = ["--figure", "roc_auc", "--class_weights", "--output_dir", tmp_path / "areas"]
    done = run_here("compare", "--task", "image", *flags, *more)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "areas" / "results.json").read_text())
    (budget,) = record["encoders"][0]["budgets"]
    for variant in ("pretrained", "scratch"):
        runs = [json.loads(Path(run, "results.json").read_text()) for run in budget[variant]["folders"]]
        assert all(run["arguments"]["class_weights"] for run in runs)
        areas = [run["metrics"]["roc_auc"]["value"] for run in runs]
        assert budget[variant]["by_seed"]["roc_auc"] == areas
        assert budget[variant]["roc_auc"]["value"] == pytest.approx(np.mean(areas), abs=1e-4)
    gain = budget["pretrained"]["roc_auc"]["value"] - budget["scratch"]["roc_auc"]["value"]
    assert budget["gain"]["value"] == pytest.approx(gain)
    done = run_here("compare", "--task", "image", *flags, "--head", "crf", "--output_dir", tmp_path / "other")
    assert done.returncode == 2
    assert "--head crf: does not go with --task image" in done.stderr


def test_class_weights_equal_scikit_learn_and_weight_the_loss():
    labels = ["a"] * 30 + ["b"] * 10 + ["c"] * 5
    weights = weights_of_classes(Counter(labels), ["a", "b", "c"])
    assert weights == pytest.approx(compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=labels))
    model = AutoModelForImageClassification.from_config(
        ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", num_labels=3)
    ).eval()
    pixels, correct = torch.randn(6, 3, 8, 8), torch.tensor([0, 0, 0, 0, 1, 2])
    losses = -model(pixels).logits.log_softmax(-1)[range(6), correct]
    set_loss(model, 0.0, weights)
    expected = (losses * torch.tensor([45 / 90] * 4 + [45 / 30, 45 / 15])).mean()
    torch.testing.assert_close(model(pixels, labels=correct).loss, expected)


def test_class_weights_raise_the_probability_of_a_rare_class(digits, tmp_path):
    save_digits(tmp_path / "data", "train", names=("1",), most=60)
    save_digits(tmp_path / "data", "train", names=("7",), most=6)
    save_digits(tmp_path / "data", "test")
    flags = {"encoder": "scratch:mlp-tiny", "data": str(tmp_path / "data"), "image_size": 8, "max_steps": 5}
    means = []
    for weighted in (False, True):
        folder = tmp_path / str(weighted)
        finetune("image", **flags, output_dir=str(folder), class_weights=weighted, learning_rate=1e-3)
        lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        means.append(np.mean([line["probabilities"]["7"] for line in lines]))
    assert means[1] > means[0] + 0.05


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--encoder", "scratch:resnet-huge"],
            "scratch:resnet-huge: no such folder or preset, the presets are",
        ),
        (
            ["--encoder", "scratch:lenet-5", "--image_size", "28"],
            "--image_size 28: LeNet-5 takes images of 32 pixels",
        ),
        (["--encoder", "scratch:timm/nothing"], "timm knows no such network"),
        (["--encoder", "scratch:mlp-tiny", "--augment", "mirror"], "mirror"),
        (["--encoder", "scratch:mlp-tiny", "--image_size", "0"], "--image_size 0"),
        (["--encoder", "scratch:mlp-tiny", "--choose_threshold"], "--choose_threshold: there are 10 labels"),
    ],
)
def test_wrong_flags_end_in_one_line(flags, message, tmp_path):
    flags = [*flags, "--data", "sample", "--output_dir", tmp_path / "out", "--max_steps", "1"]
    done = run_here("finetune", "image", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()[-1:]) == 1


def test_the_area_under_the_curve_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 20, 200) / 20, rng.random(200) < 0.3
    found = bootstrap_auc(scores, positive).interval()
    assert found["value"] == pytest.approx(roc_auc_score(positive, scores))
    keys = [rng.integers(0, 200, 200) for _ in range(500)]
    areas = [roc_auc_score(positive[key], scores[key]) for key in keys]
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(areas, [2.5, 97.5]).tolist(), abs=0.02)


def test_the_difference_of_two_areas_is_paired():
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.4
    runs, others = (
        [(positive + deviation * rng.normal(size=300), positive) for _ in range(2)] for deviation in (1, 2)
    )
    means = [bootstrap_mean([bootstrap_auc(*scored) for scored in each]) for each in (runs, others)]
    found = means[0].minus(means[1]).interval()
    areas = [[roc_auc_score(positive, scores) for scores, _ in scored] for scored in (runs, others)]
    assert found["value"] == pytest.approx(np.mean(areas[0]) - np.mean(areas[1]))
    keys = [rng.integers(0, 300, 300) for _ in range(300)]
    differences = [
        np.mean([roc_auc_score(positive[key], scores[key]) for scores, _ in runs])
        - np.mean([roc_auc_score(positive[key], scores[key]) for scores, _ in others])
        for key in keys
    ]
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(differences, [2.5, 97.5]).tolist(), abs=0.02)
    assert means[0].minus(means[0]).interval() == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("scratch:timm/tf_efficientnet_lite0", ["classifier", "conv_head", "blocks.6.0", "blocks.0.0", "conv_stem"]),
        ("scratch:timm/resnet10t", ["fc", "layer4.0.conv1", "layer1.0.conv1", "conv1.0"]),
        ("scratch:resnet-tiny", ["classifier.1", "encoder.stages.2", "encoder.stages.0", "embedder"]),
        ("scratch:vit-tiny", ["classifier", "layernorm", "layers.3", "layers.0", "embeddings"]),
    ],
)
def test_layers_are_counted_from_the_head_down(name, order):
    rows = IMAGES.load_labelled("sample", "test").select(range(4))
    labels = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    options = ImageEncoderArguments(image_size=32)
    model, _ = load_encoder(name, "AutoModelForImageClassification", MODALITIES["image"], options, rows, **labels)
    depths = layer_depths(model)
    found = [{depth for parameter, depth in depths.items() if f".{part}." in f".{parameter}"} for part in order]
    assert all(len(depth) == 1 for depth in found), found
    firsts = [min(depth) for depth in found]
    assert firsts == sorted(firsts)
    assert firsts[0] == 0
    assert max(firsts) == max(depths.values())


def test_fine_tuning_an_imagenet_network_on_x_rays(tmp_path):
    data = shelf("chest_xray")
    encoder = data.parent.parent / "models" / "efficientnet_lite0_imagenet"
    if not encoder.is_dir():
        pytest.skip(f"no {encoder}")
    flags = {"train_size": 200, "freeze": True, "image_size": 64}
    record = finetune("image", encoder=str(encoder), data=str(data), output_dir=str(tmp_path / "probe"), **flags)
    assert record["metrics"]["roc_auc"]["value"] > 0.85


@pytest.mark.slow
def test_flags_that_a_fitted_head_does_not_use_are_said(digits, tmp_path):
    flags = ["--encoder", "scratch:resnet-tiny", "--image_size", "16", "--data", digits, "--freeze"]
    done = run_here("finetune", "image", *flags, "--output_dir", tmp_path / "plain")
    assert "the head was fitted at once" not in done.stderr
    flags += ["--class_weights", "--label_smoothing", "0.1", "--augment", "flip", "--learning_rate", "1e-2"]
    done = run_here("finetune", "image", *flags, "--output_dir", tmp_path / "out")
    unused = re.search(r"--freeze: the head was fitted at once, without (.*)", done.stderr)[1].split(", ")
    assert set(unused) == {"--class_weights", "--label_smoothing", "--augment", "--learning_rate"}


@pytest.mark.slow
def test_the_loss_of_the_record_is_that_of_the_log(tmp_path):
    """Also with label smoothing, which changes the loss, and with weights that are not the last ones."""
    flags = {"corpus": "sample", "output_dir": str(tmp_path / "out"), "preset": "resnet-tiny", "image_size": 16}
    record = pretrain("resnet", **flags, max_steps=20, eval_steps=5, label_smoothing=0.3, class_weights=True)
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    best = min(line["validation_loss"] for line in log if "validation_loss" in line)
    assert record["metrics"]["loss"]["value"] == pytest.approx(best, rel=1e-5)
