"""A Hub that fails: no file is lost or incomplete, and the next attempt succeeds."""

import filecmp
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from loopback import run_in_process

FAULTS = ("error", "drop", "slow", "stale", "corrupt", "expired")
FAST = (2,)  # the others wait longer for the Hub to recover
SEEDS = [seed if seed in FAST else pytest.param(seed, marks=pytest.mark.slow) for seed in range(30)]


@pytest.fixture
def faultless(hub):
    yield hub
    hub.spoil()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of three files, one of them large enough to go by LFS."""
    folder = tmp_path_factory.mktemp("model") / "model"
    folder.mkdir()
    draws = random.Random(0)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer.json").write_text(json.dumps({"x": [draws.random() for _ in range(20_000)]}))
    (folder / "model.safetensors").write_bytes(draws.randbytes(3_000_000))
    return folder


def are_equal(one: Path, other: Path) -> bool:
    return all(filecmp.cmp(file, other / file.name, shallow=False) for file in one.iterdir())


@pytest.mark.parametrize("seed", SEEDS)
def test_thirty_faults_cost_nothing(faultless, folder, tmp_path, seed):
    hub, draws, name = faultless, random.Random(seed), f"me/faults-{seed}"
    kind, times = draws.choice(FAULTS), draws.randint(1, 12)
    shutil.copytree(folder, tmp_path / "mine")

    hub.spoil(kind, seed=seed, share=0.4, times=times)
    first = hub.run("push", tmp_path / "mine", name)
    hub.spoil()
    assert first.returncode in (0, 1, 2), first.stderr
    assert first.returncode == 0 or len(first.stderr.splitlines()) == 1
    assert "Traceback" not in first.stderr
    assert are_equal(folder, tmp_path / "mine")
    api = hub.api()
    there = set(api.list_repo_files(name)) if api.repo_exists(name) else set()
    whole = {"config.json", "tokenizer.json", "model.safetensors", "README.md", ".gitattributes"}
    assert there == whole if first.returncode == 0 else there in (set(), {".gitattributes"}, whole)
    assert hub.run("push", tmp_path / "mine", name).returncode == 0
    assert set(api.list_repo_files(name)) == whole

    hub.spoil(kind, seed=seed, share=0.4, times=times)
    done = hub.run("pull", name, tmp_path / "theirs")
    hub.spoil()
    assert done.returncode in (0, 1, 2), done.stderr
    if done.returncode:
        assert len(done.stderr.splitlines()) == 1
        assert os.listdir(tmp_path) == ["mine"]
        assert hub.run("pull", name, tmp_path / "theirs").returncode == 0
    assert are_equal(folder, tmp_path / "theirs")
    assert sorted(os.listdir(tmp_path)) == ["mine", "theirs"]


def test_another_commit_that_comes_in_between_is_kept(faultless, folder):
    """The parent is stale at first; the card is then made from the one in the newest commit."""
    assert faultless.run("push", folder, "me/busy").returncode == 0
    faultless.spoil("stale", match="commit", times=1)
    assert faultless.run("push", folder, "me/busy", "--tag", "v2").returncode == 0


def test_a_file_that_is_never_what_its_hash_says_is_not_kept(faultless, folder, tmp_path):
    assert faultless.run("push", folder, "me/corrupt").returncode == 0
    faultless.spoil("corrupt", match="resolve.*safetensors")
    done = faultless.run("pull", "me/corrupt", tmp_path / "x")
    assert done.returncode == 1
    assert "'model.safetensors' is not what its hash says; nothing was kept" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["push", "pull"])
def test_a_page_in_the_place_of_an_answer_is_no_hub(faultless, folder, tmp_path, command):
    """As in a network where one has to log in first."""
    faultless.spoil("page")
    words = {"push": [folder, "me/page"], "pull": ["me/page", tmp_path / "x"]}[command]
    done = faultless.run(command, *words)
    assert done.returncode == 1
    assert "does not answer as a Hub does" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_pull_that_is_killed_leaves_no_folder_of_that_name(faultless, folder, tmp_path):
    assert faultless.run("push", folder, "me/killed").returncode == 0
    faultless.spoil("slow", match="GET .*resolve.*safetensors")
    command = [sys.executable, "-m", "toolkit", "pull", "me/killed", str(tmp_path / "x")]
    process = subprocess.Popen(command, env={**os.environ, **faultless.environment, "PYTHONPATH": str(REPOSITORY)})
    while not list(tmp_path.glob(".x.*/*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    faultless.spoil()
    assert not (tmp_path / "x").exists()
    assert faultless.run("pull", "me/killed", tmp_path / "x").returncode == 0
    assert are_equal(folder, tmp_path / "x")


# Training that ends with a push

TRAINING = {
    "pretrain": ["pretrain", "word2vec", "--preset", "word2vec-tiny", "--num_train_epochs", "1"],
    "fewshot": ["fewshot", "fit", "--data", "sample", "--shots", "2"],
    "tokenizer": ["tokenizer", "--corpus", "sample", "--vocab_size", "300"],
}


@pytest.mark.parametrize("command", TRAINING)
def test_every_training_command_pushes_what_it_made(hub, corpus, encoders, tmp_path, command):
    words = [*TRAINING[command], "--output_dir", tmp_path / "run", "--push_to_hub", f"me/trained-{command}"]
    words += {"pretrain": ["--corpus", corpus], "fewshot": ["--encoder", encoders["word2vec"]]}.get(command, [])
    done = hub.run(*words)
    assert done.returncode == 0, done.stderr
    assert f"sent {tmp_path / 'run'} to me/trained-{command}" in done.stderr
    assert hub.run("pull", f"me/trained-{command}", tmp_path / "pulled").returncode == 0
    for file in (tmp_path / "run").iterdir():
        if file.suffix in (".json", ".safetensors") and file.name != "config.json":
            assert filecmp.cmp(file, tmp_path / "pulled" / file.name, shallow=False)


def test_a_dead_endpoint_costs_a_warning(hub, corpus, tmp_path):
    words = [*TRAINING["pretrain"], "--corpus", corpus, "--output_dir", tmp_path / "run", "--push_to_hub", "me/dead"]
    started = time.monotonic()
    done = hub.run(*words, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0
    assert time.monotonic() - started < 120
    assert json.loads((tmp_path / "run" / "results.json").read_text())["task"] == "pretraining"
    (warning,) = re.findall("toolkit: warning: .*", done.stderr)
    assert "does not answer" in warning
    assert "127.0.0.1:9" in warning
    again = warning.partition("to try again: toolkit ")[2].split()
    assert hub.run(*again).returncode == 0
    assert hub.api().file_exists("me/dead", "model.safetensors")


def test_a_name_that_no_hub_takes_is_refused_before_training(corpus, tmp_path):
    words = [*TRAINING["pretrain"], "--corpus", corpus, "--output_dir", tmp_path / "run", "--push_to_hub", "a--b"]
    done = run_in_process(*words)
    assert done.returncode == 2
    assert "--push_to_hub a--b: expected a name like org/name" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_finished_run_that_is_resumed_is_only_sent(hub, tmp_path):
    words = ["finetune", "image", "--encoder", "scratch:lenet-5", "--data", "sample", "--max_steps", "2"]
    words += ["--output_dir", tmp_path / "run"]
    assert run_in_process(*words).returncode == 0
    log = (tmp_path / "run" / "train_log.jsonl").read_bytes()
    done = hub.run(*words, "--resume", "--push_to_hub", "me/later")
    assert done.returncode == 0
    assert "sent" in done.stderr
    assert (tmp_path / "run" / "train_log.jsonl").read_bytes() == log
    assert hub.api().file_exists("me/later", "model.safetensors")
