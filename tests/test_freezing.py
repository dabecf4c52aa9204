"""An encoder that is frozen, for the first part of a run or all of it: its mode, gradients and statistics."""

import json
from pathlib import Path

import pytest
import torch
from conftest import run_toolkit
from in_process import run_here
from safetensors.torch import load_file
from test_processes import FSDP2
from test_training import finetune, interrupted_copy, losses, weights_of

from toolkit.models.families import presets
from toolkit.training.arguments import TrainingArguments
from toolkit.training.inputs import TrainingData
from toolkit.training.loop import train
from toolkit.training.optimizers import ParameterOptions


def test_a_frozen_encoder_is_in_evaluation_mode_and_gets_no_gradient():
    """Half of the run, and what is frozen for all of it stays so."""
    from transformers import BertForTokenClassification

    model = BertForTokenClassification(presets()["bert-tiny"].config(60))
    model.bert.embeddings.requires_grad_(False)
    seen = []

    def look(module, inputs) -> None:
        layer = model.bert.encoder.layer[0]
        modes = [each.training for each in (model.bert.embeddings.dropout, layer.output.dropout, model.dropout)]
        seen.append([*modes, inputs[0].requires_grad, sum(p.requires_grad for p in model.bert.parameters()) > 0])

    model.classifier.register_forward_pre_hook(look)
    ids = torch.randint(5, 60, (8, 12))
    rows = [{"input_ids": row, "labels": row % 2} for row in ids]

    def collate(rows, keys):
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return {**batch, "num_targets": batch["labels"].numel(), "num_items": len(rows)}

    arguments = TrainingArguments(max_steps=4, batch_size=4)
    options = lambda name: ParameterOptions(start=0.5 * name.startswith("bert."))  # noqa: E731
    train(model, TrainingData(rows, collate), arguments, options=options)
    assert seen == 2 * [[False, False, True, False, False]] + 2 * [[False, True, True, True, True]]


def test_running_statistics_stay_while_the_head_is_warmed_up(digits_encoder, tmp_path):
    flags = ["--encoder", digits_encoder, "--data", "sample", "--train_size", "40", "--max_steps", "4"]
    done = run_here("finetune", "image", *flags, "--head_warmup_ratio", "0.99", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (digits_encoder, tmp_path / "out"))
    found = {name: next(value for long, value in after.items() if long.endswith(f".{name}")) for name in before}
    assert sum("running_mean" in name for name in before) > 3
    assert all(torch.equal(before[name], found[name]) for name in before)


def test_the_head_learns_as_if_the_encoder_were_always_frozen(encoders, tmp_path):
    """The gradients of frozen parameters do not count in the norm that is clipped."""
    flags = ["--layers", "top", "--max_steps", "5", "--train_size", "20", "--max_grad_norm", "0.1"]
    finetune("pos", encoders["bert"], tmp_path / "frozen", *flags, "--freeze", "--logging_steps", "1")
    finetune("pos", encoders["bert"], tmp_path / "warm", *flags, "--head_warmup_ratio", "0.99", "--logging_steps", "1")
    assert losses(tmp_path / "warm", "grad_norm") == losses(tmp_path / "frozen", "grad_norm")
    assert min(losses(tmp_path / "warm", "grad_norm")) > 0.1
    assert weights_of(tmp_path / "warm") == weights_of(tmp_path / "frozen")


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vit") / "vit"
    flags = ["--corpus", "sample", "--preset", "vit-tiny", "--image_size", "16", "--max_steps", "3"]
    done = run_here("pretrain", "vit-mae", *flags, "--output_dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


EIGHT_STEPS = ["--data", "sample", "--max_steps", "8", "--head_warmup_ratio", "0.5", "--save_steps", "3"]
EIGHT_STEPS += ["--eval_steps", "4", "--logging_steps", "1", "--train_size", "64", "--batch_size", "16"]


def finetune_vit(vit: Path, output_dir: Path, *flags: str, **options) -> Path:
    done = run_toolkit(
        "finetune", "image", "--encoder", vit, "--output_dir", output_dir, *EIGHT_STEPS, *flags, **options
    )
    assert done.returncode == 0, done.stderr
    assert ("resuming from" in done.stdout) == ("--resume" in flags)
    return output_dir


@pytest.fixture(scope="module")
def whole(vit, tmp_path_factory) -> Path:
    return finetune_vit(vit, tmp_path_factory.mktemp("whole") / "whole")


@pytest.mark.parametrize("step", [3, 6])
def test_resuming_within_and_after_a_head_warmup_gives_the_same_bytes(step, vit, whole, tmp_path):
    stopped = interrupted_copy(whole, tmp_path / "stopped")
    if step == 3:
        for file in (stopped / "checkpoint-00000006").iterdir():
            file.unlink()
        (stopped / "checkpoint-00000006").rmdir()
    finetune_vit(vit, stopped, "--resume")
    assert weights_of(stopped) == weights_of(whole)
    assert losses(stopped) == losses(whole)
    moments = load_file(whole / "checkpoint-00000003" / "optimizer.safetensors")
    assert {name.partition(".")[0] for name in moments} == {"classifier"}


@pytest.mark.parametrize(
    ("num_processes", "flags", "environment"),
    [
        pytest.param(1, ["--gradient_accumulation_steps", "4"], {}, id="accumulated", marks=pytest.mark.slow),
        pytest.param(2, ["--gradient_accumulation_steps", "2"], {}, id="copied", marks=pytest.mark.slow),
        pytest.param(2, [], FSDP2, id="sharded"),
    ],
)
def test_a_head_warmup_is_the_same_on_processes_and_parts(num_processes, flags, environment, vit, whole, tmp_path):
    run = finetune_vit(vit, tmp_path / "run", *flags, num_processes=num_processes, **environment)
    for figure in ("loss", "grad_norm", "validation_accuracy"):
        assert losses(run, figure) == pytest.approx(losses(whole, figure), abs=1e-4), figure
    assert json.loads((run / "results.json").read_text())["num_steps"] == 8
