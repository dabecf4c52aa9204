"""The audio task from the command line: networks, groups, windows, few-shot, pretraining, explanations."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import run_toolkit
from in_process import run_here
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score
from test_audio import RATE, as_bytes, tone
from test_training import losses
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    HubertConfig,
    HubertModel,
    Wav2Vec2FeatureExtractor,
    pipeline,
)

from tasks import finetune, predict
from toolkit import FewShotClassifier, InputError, pretrain
from toolkit.data.audio_decoding import open_audio
from toolkit.data.audio_files import AUDIO

ENCODERS = {
    "resnet": ["scratch:resnet-tiny", "--learning_rate", "1e-2"],
    "fast": ["scratch:resnet-fast-mini", "--learning_rate", "1e-2"],
    "lenet": ["scratch:lenet-5", "--learning_rate", "3e-3"],
    "vit": ["scratch:vit-tiny", "--learning_rate", "1e-3", "--max_steps", "80"],
    "timm": ["scratch:timm/test_resnet", "--learning_rate", "1e-2"],
    "ast": ["scratch:ast-tiny", "--learning_rate", "1e-3", "--max_steps", "80"],
}


def save_tones(folder: Path, split: str, count: int) -> None:
    """Class folders of high, middle and low tones."""
    random = np.random.default_rng(len(split))
    for label, hertz in (("high", 1600), ("low", 300), ("middle", 700)):
        (folder / split / label).mkdir(parents=True)
        for number in range(count):
            samples = tone(random.uniform(0.2, 0.4), hertz * random.uniform(0.9, 1.1))
            noise = 0.01 * random.standard_normal(len(samples))
            soundfile.write(folder / split / label / f"{number}.wav", samples + noise, RATE)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    root = tmp_path_factory.mktemp("tones")
    for split, count in (("train", 30), ("validation", 6), ("test", 6)):
        save_tones(root, split, count)
    return root


@pytest.fixture(scope="module")
def classifiers(tones, tmp_path_factory):
    """A classifier of tones of each kind of network."""
    root = tmp_path_factory.mktemp("classifiers")
    for kind, (encoder, *flags) in ENCODERS.items():
        flags += ["--encoder", encoder, "--data", tones, "--output_dir", root / kind, "--num_mel_bins", "32"]
        done = run_here("finetune", "audio", "--max_steps", "30", *flags, "--batch_size", "16", "--augment", "shift")
        assert done.returncode == 0, done.stderr
    return root


def record_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_checkpoint_of_each_network(classifiers, tones, kind):
    """It has learned, its figures are those of its predictions, and transformers' pipeline predicts the same."""
    record, lines = record_of(classifiers / kind), lines_of(classifiers / kind)
    right = accuracy_score([line["label"] for line in lines], [line["predicted"] for line in lines])
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert right > 0.8
    ask = pipeline("audio-classification", str(classifiers / kind), top_k=3)
    for line in lines[::5]:
        samples = open_audio({"bytes": None, "path": line["audio"]}, "")
        found = {each["label"]: each["score"] for each in ask(samples)}
        assert found == pytest.approx(line["probabilities"], abs=1e-4)


def test_long_recordings_in_windows(classifiers, tones, tmp_path):
    """A recording predicted in windows equals its windows one by one, and alone the mean of its windows."""
    parts = [tone(0.3, hertz) for hertz in (300, 1600, 700, 1600)]
    samples = np.concatenate([np.pad(part, (0, 1600)) for part in parts])  # half a second each
    soundfile.write(tmp_path / "long.wav", samples, RATE)
    folder = classifiers / "resnet"
    done = run_here("predict", folder, tmp_path / "long.wav", "--window_seconds", "0.5", "--output_format", "jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["predicted"] for line in lines] == ["low", "high", "middle", "high"]
    assert (lines[1]["audio"], lines[1]["start"], lines[1]["stop"]) == (str(tmp_path / "long.wav"), 0.5, 1.0)
    for number, line in enumerate(lines):
        soundfile.write(tmp_path / "part.wav", samples[4000 * number : 4000 * (number + 1)], RATE)
        (alone,) = predict(str(folder), [str(tmp_path / "part.wav")])
        assert alone["probabilities"] == pytest.approx(line["probabilities"], abs=1e-5)
    (whole,) = predict(str(folder), [str(tmp_path / "long.wav")])
    assert sum(whole["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert max(whole["probabilities"].values()) < 0.99  # no window decides alone


def test_groups_and_the_sample(tmp_path):
    flags = ["--encoder", "scratch:resnet-tiny", "--data", "sample", "--output_dir", tmp_path, "--max_steps", "3"]
    done = run_here("finetune", "audio", *flags, "--group_column", "speaker", "--test_groups", "f1", "robert")
    assert done.returncode == 0, done.stderr
    assert record_of(tmp_path)["n"] == 20
    done = run_here("finetune", "audio", *flags, "--group_column", "accent", "--overwrite_output_dir")
    assert done.returncode == 2
    assert "--group_column accent: no such column in sample" in done.stderr


def test_processes_and_resumed_runs_learn_the_same(tones, tmp_path):
    """Two processes with half the batch, and a run that goes on from a checkpoint, end with the same weights."""
    flags = [
        "finetune",
        "audio",
        "--encoder",
        "scratch:ast-tiny",
        "--data",
        tones,
        "--augment",
        "shift",
        "noise",
        "mask",
    ]
    flags += ["--batch_size", "8", "--max_steps", "12", "--save_steps", "5", "--logging_steps", "1"]
    for name, num_processes in (("one", 1), ("two", 2)):
        done = run_toolkit(*flags, "--output_dir", tmp_path / name, num_processes=num_processes, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    left_out = shutil.ignore_patterns("results.json", "checkpoint-*10", "checkpoint-*12")
    shutil.copytree(tmp_path / "one", tmp_path / "resumed", ignore=left_out)
    done = run_toolkit(*flags, "--output_dir", tmp_path / "resumed", "--resume", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout + done.stderr
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "resumed"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_another_network_goes_on_from_a_checkpoint(classifiers, tones, tmp_path):
    """To other labels: the head is a linear probe on the encoder, which keeps its weights and its front end."""
    flags = {"data": "sample", "output_dir": str(tmp_path), "freeze": True, "trim_silence": False}
    record = finetune("audio", encoder=str(classifiers / "ast"), **flags)
    assert record["metrics"]["accuracy"]["value"] > 0.15  # of ten digits
    before, after = (AutoModelForAudioClassification.from_pretrained(each) for each in (classifiers / "ast", tmp_path))
    assert after.config.num_labels == 10
    for name, value in before.base_model.state_dict().items():
        assert torch.equal(value, after.base_model.state_dict()[name]), name
    extractors = [AutoFeatureExtractor.from_pretrained(each).to_dict() for each in (classifiers / "ast", tmp_path)]
    assert extractors[0] == extractors[1]


def test_an_image_encoder_reads_recordings(tones, tmp_path):
    """Its weights arrive in the network on spectrograms; few-shot classification takes it too."""
    from toolkit.transfer.encoders import load_encoder

    pretrain("resnet", corpus="sample", output_dir=str(tmp_path / "digits"), preset="resnet-tiny", max_steps=40)
    modality = __import__("toolkit").MODALITIES["audio"]
    rows = AUDIO.load_labelled(str(tones), "train")
    model, extractor = load_encoder(str(tmp_path / "digits"), "AutoModel", modality, None, rows)
    images, _ = load_encoder(str(tmp_path / "digits"), "AutoModel", __import__("toolkit").MODALITIES["image"])
    for name, value in images.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value), name
    assert extractor.sampling_rate == RATE
    flags = [
        "--encoder",
        tmp_path / "digits",
        "--modality",
        "audio",
        "--data",
        tones,
        "--output_dir",
        tmp_path / "few",
    ]
    done = run_here("fewshot", "fit", *flags, "--method", "linear")
    assert done.returncode == 0, done.stderr
    files = sorted((tones / "test").rglob("*.wav"))
    done = run_here("fewshot", "predict", "--encoder", tmp_path / "few", *files)
    found = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert accuracy_score([file.parent.name for file in files], found) > 0.6


def test_enrolment_and_rejection(classifiers, tones, tmp_path):
    """Words join a classifier from the command line; with calibration it rejects what is unlike all of them."""
    for label in ("high", "low"):
        (tmp_path / "known" / label).mkdir(parents=True)
        for file in (tones / "train" / label).glob("*.wav"):
            (tmp_path / "known" / label / file.name).write_bytes(file.read_bytes())
    (tmp_path / "new" / "middle").mkdir(parents=True)
    for number in range(3):
        content = (tones / "train" / "middle" / f"{number}.wav").read_bytes()
        (tmp_path / "new" / "middle" / f"{number}.wav").write_bytes(content)
    flags = ["--data", tmp_path / "known", "--output_dir", tmp_path / "two", "--calibration_data", "sample"]
    done = run_here("fewshot", "fit", "--encoder", classifiers / "resnet", *flags, "--shots", "5")
    assert done.returncode == 0, done.stderr
    middle = sorted((tones / "test" / "middle").glob("*.wav"))
    done = run_here("fewshot", "predict", "--encoder", tmp_path / "two", *middle)
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} <= {"-", "high", "low"}
    flags = ["--data", tmp_path / "new", "--output_dir", tmp_path / "three"]
    done = run_here("fewshot", "add", "--classifier", tmp_path / "two", *flags)
    assert done.returncode == 0, done.stderr
    assert "3 classes, with 3 new examples" in done.stdout
    loaded = FewShotClassifier.from_pretrained(tmp_path / "three")
    assert loaded.reject
    items = AUDIO.load_inputs(middle)["audio"][:]
    assert list(loaded.set_params(reject=False).predict(items)).count("middle") > len(middle) / 2
    flags[-1] = tmp_path / "four"
    done = run_here("fewshot", "add", "--classifier", tmp_path / "three", *flags)
    assert done.returncode == 2
    assert "middle: there is a class of this name" in done.stderr


def test_hubert_is_an_encoder_of_recordings(tones, tmp_path):
    """A checkpoint that reads samples: it is fine-tuned, and features do not depend on the rest of the batch."""
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16, 16, 16),
        conv_stride=(5, 4, 4),
        conv_kernel=(10, 4, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        mask_time_prob=0.0,
    )
    HubertModel(config).save_pretrained(tmp_path / "hubert")
    Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=True).save_pretrained(tmp_path / "hubert")
    flags = ["--encoder", tmp_path / "hubert", "--data", tones, "--output_dir", tmp_path / "out", "--augment", "noise"]
    done = run_here("finetune", "audio", *flags, "--max_steps", "4")
    assert done.returncode == 0, done.stderr
    done = run_here("finetune", "audio", *flags[:-1], "mask", "--max_steps", "4", "--overwrite_output_dir")
    assert done.returncode == 2
    assert "--augment mask: goes with an encoder that reads spectrograms" in done.stderr
    from toolkit.transfer.features import load_featurizer

    featurizer = load_featurizer(str(tmp_path / "hubert"))
    items = AUDIO.load_labelled(str(tones), "test")["audio"][:5]
    together = featurizer(items)
    alone = np.concatenate([featurizer([item]) for item in items])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_pretraining_without_labels(tones, tmp_path):
    record = pretrain(
        "audio-simclr", corpus=str(tones), output_dir=str(tmp_path / "sounds"), preset="resnet-tiny", max_steps=12
    )
    assert record["modality"] == "audio"
    found = losses(tmp_path / "sounds", "validation_loss")
    assert min(found[1:]) < found[0]
    done = run_here(
        *("compare", "--task", "audio", "--encoders", tmp_path / "sounds", "--data", tones, "--train_sizes", "3"),
        *("--per_class", "--seeds", "1", "--learning_rates", "1e-3", "--max_steps", "3", "--baseline"),
        *("--output_dir", tmp_path / "compared"),
    )
    assert done.returncode == 0, done.stderr
    comparison = record_of(tmp_path / "compared")
    assert comparison["baseline"]["name"] == "logistic regression on MFCC statistics"
    assert comparison["baseline"]["budgets"][0]["accuracy"]["value"] > 0.6
    assert comparison["examples"][0]["picture"].startswith("data:image/png")


@pytest.mark.parametrize("kind", ["resnet", "ast"])
def test_explanations_show_where_the_tone_is(classifiers, tones, tmp_path, kind):
    """Occluding the tone lowers the logit more than occluding another place."""
    from toolkit.explain.recordings import importance_maps

    file = next((tones / "test" / "high").glob("*.wav"))
    done = run_here("explain", classifiers / kind, file, "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    label, probability, _ = done.stdout.split("\t")
    written = {path.name for path in tmp_path.iterdir()}
    assert {"spectrogram.png", "occlusion.png", "explanation.html"} <= written
    assert ("grad_cam.png" in written) == (kind == "resnet")
    assert label == "high"
    assert float(probability) > 0.4
    model = AutoModelForAudioClassification.from_pretrained(classifiers / kind).eval()
    extractor = AutoFeatureExtractor.from_pretrained(classifiers / kind)
    inputs = extractor(open_audio({"bytes": None, "path": str(file)}, ""), return_tensors="pt")["input_values"]
    occlusion = importance_maps(model, inputs, model.config.label2id["high"])["occlusion"]
    tone_is = inputs[0].T.numpy() > np.quantile(inputs, 0.98)
    assert occlusion[tone_is].mean() > occlusion[~tone_is].mean()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.wav", b"", "the file is empty"),
        ("text.wav", b"this is a text", "this is no recording that libsndfile can read"),
    ],
)
def test_a_broken_file_is_named_or_skipped(tones, tmp_path, name, content, message):
    save_tones(tmp_path, "train", 4)
    (tmp_path / "train" / "high" / name).write_bytes(content)
    flags = ["--encoder", "scratch:resnet-tiny", "--data", tmp_path, "--output_dir", tmp_path / "run"]
    done = run_here("finetune", "audio", *flags, "--max_steps", "1")
    assert done.returncode == 2
    assert f"{name}: {message}" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
    done = run_here("finetune", "audio", *flags, "--max_steps", "1", "--skip_broken")
    assert done.returncode == 0, done.stderr
    assert f"left out: {tmp_path}" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sampling_rate", "0"], "--sampling_rate 0: expected a number greater than zero"),
        (["--sampling_rate", "16000"], "--sampling_rate 16000: "),
        (["--num_mel_bins", "20"], "--num_mel_bins 20: "),
        (["--max_seconds", "3"], "--max_seconds 3.0: "),
        (["--image_size", "64"], "--image_size 64: "),
        (["--test_groups", "a"], "--test_groups a: goes with --group_column"),
    ],
)
def test_flags_that_do_not_fit_the_encoder(classifiers, tones, tmp_path, flags, message):
    done = run_here(
        *("finetune", "audio", "--encoder", classifiers / "ast", "--data", tones, "--output_dir", tmp_path / "run"),
        *flags,
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_label_with_one_recording(tmp_path):
    save_tones(tmp_path, "train", 4)
    for file in (tmp_path / "train" / "high").glob("[1-9].wav"):
        file.unlink()
    flags = ["--encoder", "scratch:resnet-tiny", "--data", tmp_path / "train", "--output_dir", tmp_path / "run"]
    done = run_here("finetune", "audio", *flags, "--max_steps", "1")
    assert done.returncode == 2
    assert "the label high has one recording, expected two or more" in done.stderr.splitlines()[-1]


def test_recordings_that_are_too_short_for_patches(tones, tmp_path):
    flags = ["--encoder", "scratch:ast-tiny", "--data", tones, "--output_dir", tmp_path / "run"]
    done = run_here("finetune", "audio", *flags, "--max_seconds", "0.1")
    assert done.returncode == 2
    assert "--max_seconds 0.1: too small for ast-tiny" in done.stderr.splitlines()[-1]


def test_windows_go_with_recordings(tmp_path):
    with pytest.raises(InputError, match="--window_seconds 1: goes with recordings"):
        __import__("toolkit").MODALITIES["text"].cut([{"text": "a"}], 1, 1)


def test_the_content_of_a_recording_counts_not_its_name(tones, tmp_path):
    """The same bytes in two splits are reported."""
    for split in ("train", "test"):
        for label, hertz in (("high", 900), ("low", 200)):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(4):
                content = as_bytes(tone(0.2, hertz + 10 * number))["bytes"]
                (tmp_path / split / label / f"{split}{number}.wav").write_bytes(content)
    done = run_here(
        *("finetune", "audio", "--encoder", "scratch:resnet-tiny", "--data", tmp_path, "--max_steps", "1"),
        *("--output_dir", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    assert "8 of them also in train" in done.stderr
