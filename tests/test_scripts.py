"""The recipes and benchmarks with a tiny budget, in one process and under torchrun."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TORCHRUN, run_toolkit, shelf
from PIL import Image
from safetensors.torch import load_file
from test_prepare import same

TOOLKIT = {
    "one process": f"{sys.executable} -m toolkit",
    "torchrun": " ".join([sys.executable, *TORCHRUN, "-m", "toolkit"]),
}


def run_script(script: str, *arguments, way: str = "one process", cwd: Path = REPOSITORY) -> str:
    """Run a script, which must succeed, and return what it prints. `python` is the interpreter of the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "TOOLKIT": TOOLKIT[way], "PYTHONPATH": str(REPOSITORY), "PATH": path}
    command = [*([sys.executable] if script.endswith(".py") else []), str(REPOSITORY / "scripts" / script)]
    command += map(str, arguments)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("way", TOOLKIT)
def test_recipes_run(way, corpus, tmp_path):
    run = partial(run_script, way=way)
    run("pretrain_text.sh", corpus, tmp_path / "encoders", "0.05", "--vocab_size", "500")
    flags = ["--train_sizes", "20", "--seeds", "2", "--learning_rates", "1e-3", "--max_steps", "3"]
    printed = run("transfer_pos.sh", tmp_path / "encoders", "sample", tmp_path / "pos", *flags)
    assert "gain over scratch" in printed
    record = json.loads((tmp_path / "pos" / "results.json").read_text())
    assert [encoder["name"] for encoder in record["encoders"]] == ["bert", "elmo", "word2vec"]
    assert record["seeds"] == [0, 1]
    printed = run("transfer_text.sh", tmp_path / "encoders", "sample", tmp_path / "text", *flags, "--baseline")
    assert "TF-IDF + logistic regression" in printed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="no eSpeak NG on this machine")
def test_the_recipe_of_the_encoders_of_the_page_runs(tmp_path, monkeypatch):
    data = shelf("fsdd").parent
    for name, value in {"MINUTES": "0.1", "RECORDINGS": "2", "EPOCHS": "1", "EPISODES": "3", "SEEDS": "2"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    run_script("app_encoders.sh", data, tmp_path / "runs", tmp_path / "encoders", cwd=tmp_path)
    for name in ("digits", "spoken", "photographs", "texts"):
        pretrained, random = (
            json.loads((tmp_path / "docs" / "results" / f"app_{name}{suffix}.json").read_text())
            for suffix in ("", "_random")
        )
        assert set(pretrained) == {"0/results", "1/results", "means, with the lowest and the highest"}
        assert pretrained["0/results"]["metrics"] != random["0/results"]["metrics"]
    half = load_file(tmp_path / "encoders" / "text" / "model.safetensors")
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}


@pytest.mark.slow
def test_recipes_on_images_run(tmp_path):
    tiny = ["--image_size", "8", "--max_steps", "3"]
    run_script("pretrain_images.sh", "sample", tmp_path / "encoders", "1", *tiny)
    flags = ["--train_sizes", "2", "--per_class", "--seeds", "1", "--learning_rates", "1e-3", "--baseline"]
    table = run_script("transfer_images.sh", tmp_path / "encoders", "sample", tmp_path / "digits", *flags, *tiny)
    assert "gain over scratch" in table
    assert "logistic regression on pixels" in table
    record = json.loads((tmp_path / "digits" / "results.json").read_text())
    assert [encoder["name"] for encoder in record["encoders"]] == ["resnet", "vit"]


@pytest.mark.slow
def test_word_vectors_of_three_seeds_are_scored(tmp_path):
    run_script("word_vectors.sh", "sample", tmp_path / "vectors", "--num_train_epochs", "1")
    found = [json.loads(path.read_text()) for path in (tmp_path / "vectors").glob("seed?/simlex999.json")]
    assert len({record["metrics"]["spearman"]["value"] for record in found}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("method", ["word2vec", "fasttext"])
def test_the_benchmark_of_word_vectors_runs(method, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import bench_word2vec
    import benchmarking

    monkeypatch.setattr(benchmarking, "RESULTS", tmp_path)
    monkeypatch.setattr(bench_word2vec, "EPOCHS", 1)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    bench_word2vec.main(rounds=1, corpus="sample", method=method)
    record = json.loads((tmp_path / f"bench_{method}.json").read_text())
    noted = record["medians of all that was noted"]
    assert noted["toolkit"]["seconds"] > noted["toolkit"]["seconds of gensim within"] > 0
    assert noted["gensim"]["seconds of both"] > noted["gensim"]["seconds"] > 0
    assert record["figures"]["gensim"] == [noted["gensim"]["seconds"]]
    assert all(-1 <= of[name] <= 1 for of in noted.values() for name in ("analogies", "wordsim353", "simlex999"))
    assert min(of["peak_memory_mb"] for of in noted.values()) > 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pictures_of_convolution_are_drawn(tmp_path):
    run = partial(run_script, cwd=tmp_path)
    for name in ("pictures", "results"):
        (tmp_path / "docs" / name).mkdir(parents=True)
    run("depth.sh", "sample", tmp_path / "depth", "0.05", "--learning_rates", "1e-3")
    made = {folder.name: folder for folder in (tmp_path / "depth").glob("*-*-?")}
    assert len(made) == 18
    sizes = {name: json.loads((folder / "results.json").read_text())["parameters"] for name, folder in made.items()}
    assert sizes["1-yes-0"] < sizes["3-yes-0"] < sizes["7-yes-0"]
    configs = [json.loads((made[name] / "config.json").read_text()) for name in ("7-yes-0", "7-no-0")]
    assert [config["shortcuts"] for config in configs] == [True, False]
    assert all(config["depths"] == [7, 7, 7] for config in configs)
    record = json.loads((tmp_path / "docs" / "results" / "depth.json").read_text())
    assert len(record) == 6
    reached = [
        100 * json.loads((made[f"3-no-{seed}"] / "results.json").read_text())["metrics"]["accuracy"]["value"]
        for seed in range(3)
    ]
    assert record["20 layers, shortcuts: no"]["accuracies"] == pytest.approx(reached)
    assert record["20 layers, shortcuts: no"]["accuracy"] == pytest.approx(sum(reached) / 3)
    for command in ("kernels", "pooling", "parameters"):
        run("convolution.py", command, tmp_path / "docs" / "pictures" / f"{command}.png")
    filters = tmp_path / "docs" / "pictures" / "filters.png"
    run("convolution.py", "filters", filters, tmp_path / "depth" / "1-yes-0")
    for name in ("depth", "kernels", "pooling", "parameters", "filters"):
        picture = np.asarray(Image.open(tmp_path / "docs" / "pictures" / f"{name}.png").convert("L"))
        assert picture.shape[1] >= 800
        assert picture.std() > 10


def test_initial_model_has_the_weights_before_training(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import convolution

    flags = ["--seed", "3", "--max_steps", "1", "--learning_rate", "1e-9"]
    done = run_toolkit("pretrain", "lenet", "--corpus", "sample", "--output_dir", tmp_path / "lenet", *flags)
    assert done.returncode == 0, done.stderr
    now = load_file(tmp_path / "lenet" / "model.safetensors")
    before = convolution.initial_model(str(tmp_path / "lenet")).state_dict()
    torch.testing.assert_close({name: before[name] for name in now}, now, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_recipe_of_few_shot_learning_runs(monkeypatch, tmp_path):
    data = shelf("omniglot").parent
    for name, value in (("MINUTES", "0.2"), ("SEEDS", "1"), ("EPISODES", "20")):
        monkeypatch.setenv(name, value)
    for step in ("omniglot", "trec", "names", "half"):
        run_script("few_shot.sh", data, tmp_path, step)
    folders = "omniglot/0 omniglot/0-20-1 omniglot/0-alphabet trec-minilm-contrastive half-minilm".split()
    folders.append("names-minilm/banking77-2")
    records = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in folders}
    accuracies = {name: record["metrics"]["accuracy"]["value"] for name, record in records.items()}
    assert accuracies["omniglot/0-20-1"] > accuracies["omniglot/0-alphabet"] > 0.2
    assert accuracies["trec-minilm-contrastive"] > 0.4
    assert accuracies["names-minilm/banking77-2"] > 0.6


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_recipe_of_recordings_runs(monkeypatch, tmp_path):
    data, results = shelf("fsdd").parent.resolve(), tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    monkeypatch.setenv("SEEDS", "0")
    monkeypatch.setenv("SPEAKERS", "theo")
    run = partial(run_script, "audio_figures.sh", data, data.parent / "models", tmp_path / "runs", cwd=tmp_path)
    for step in ("digits", "speakers", "commands", "pretrain", "transfer", "both_ways", "unseen"):
        run(step, "--max_steps", "3")
    records = {path.stem.removeprefix("audio_"): json.loads(path.read_text()) for path in results.glob("*.json")}
    together = records["digits_mfcc"]["metrics"]["2430 labels"]["value"]
    apart = records["speakers_mfcc"]["speakers_mfcc/theo"]["metrics"]["2000 labels"]["value"]
    assert together > apart > 0.5
    assert records["speakers"]["theo-0/results"]["dataset"] == records["digits"]["0/results"]["dataset"]
    names = [encoder["name"] for encoder in records["transfer"]["encoders"]]
    assert names == ["cifar10", "0", "simclr", "efficientnet_lite0_imagenet"]
    for name in ("unseen_speaker", "unseen_digits"):
        one, five = (records[f"{name}_{shots}"] for shots in (1, 5))
        assert min(record["metrics"]["accuracy"]["value"] for record in (*one.values(), *five.values())) > 0.1


@pytest.mark.slow
def test_the_benchmark_of_few_shot_learning_runs(monkeypatch, tmp_path):
    pytest.importorskip("setfit", reason="setfit is not installed: pip install -e '.[bench]'")
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import bench_few_shot
    import benchmarking

    monkeypatch.setattr(benchmarking, "RESULTS", tmp_path)
    bench_few_shot.main("sample", seeds=1, shots=2, steps=2)
    record = json.loads((tmp_path / "bench_few_shot.json").read_text())
    assert set(record["accuracy"]) == {"toolkit", "setfit"}
    assert record["share of setfit's seconds"] > 0


@pytest.mark.slow
def test_check_explanations_runs(tmp_path):
    """A network that classifies the sample's digits well. Covering the pixels that it uses must lower its logits."""
    digits = tmp_path / "digits"
    flags = ["--image_size", "16", "--num_train_epochs", "5", "--optim", "muon", "--learning_rate", "1e-2"]
    done = run_toolkit(
        *("finetune", "image", "--encoder", "scratch:resnet-fast", "--data", "sample", "--output_dir", digits, *flags)
    )
    assert done.returncode == 0, done.stderr
    run_script("check_explanations.py", digits, "sample", tmp_path / "record.json", "20")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["n"] == 20
    for name in ("occlusion, squares", "occlusion, moved", "grad_cam, squares"):
        found = {kind: record["metrics"][f"{name}{kind}"]["value"] for kind in ("", ", important", ", random")}
        assert found[""] == pytest.approx(found[", important"] - found[", random"])
        assert found[""] > 0


def test_check_explanations_covers_the_most_important_tenth(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import check_explanations

    scores = np.arange(100.0).reshape(10, 10)
    places = check_explanations.tenth(scores)
    assert places.tolist() == [[0] * 10] * 9 + [[1] * 10]
    pixels = check_explanations.covered(torch.ones(1, 3, 20, 20), places)
    assert pixels[..., :18, :].eq(1).all()
    assert pixels[..., 18:, :].eq(0).all()
    row = check_explanations.moved(places, np.random.default_rng(0)).sum(axis=1).tolist()
    assert sorted(row) == [0] * 9 + [10]
    assert row[9] == 0


def test_recipes_print_their_usage():
    for script in (REPOSITORY / "scripts").glob("*.sh"):
        text = script.read_text()
        assert text.startswith("#!/usr/bin/env bash\n# ")
        assert f"scripts/{script.name} " in text
        done = subprocess.run([str(script)], capture_output=True, text=True)
        assert done.returncode != 0
        assert any(name in done.stderr for name in ("CORPUS", "ENCODERS_DIR", "DATA_DIR", "KIND", "RUNS_DIR"))


def test_accelerate_reads_the_configurations():
    from accelerate.commands.config import load_config_from_file

    kinds = {
        path.stem: load_config_from_file(str(path)) for path in (REPOSITORY / "scripts/accelerate").glob("*.yaml")
    }
    expected = {
        "cpu": "NO",
        "one_gpu": "NO",
        "many_gpus": "MULTI_GPU",
        "many_machines": "MULTI_GPU",
        "fsdp2": "FSDP",
        "deepspeed": "DEEPSPEED",
    }
    assert {name: str(config.distributed_type).rpartition(".")[2] for name, config in kinds.items()} == expected
    assert kinds["fsdp2"].fsdp_config["fsdp_version"] == 2
    assert kinds["deepspeed"].deepspeed_config["zero_stage"] == 2


def test_the_cpu_configuration_runs(corpus, tmp_path):
    launcher = ("-m", "accelerate.commands.launch", "--config_file", REPOSITORY / "scripts/accelerate/cpu.yaml", "-m")
    flags = ["--corpus", corpus, "--output_dir", tmp_path / "out", "--preset", "bert-tiny", "--vocab_size", "500"]
    done = run_toolkit("pretrain", "bert", *flags, "--max_steps", "2", launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "results.json").is_file()


@pytest.mark.parametrize(("code", "goes_on"), [(0, False), (2, False), (1, True), (138, True)])
def test_the_batch_job_requeues_itself_after_failures(code, goes_on, tmp_path):
    """A fake srun runs one process and ends with the given exit code."""
    commands = {
        "srun": f'shift 2; export SLURM_PROCID=0 SLURM_LOCALID=0; "$@"; exit {code}',
        "scontrol": 'if [ $1 = show ]; then echo first; echo second; else echo "$@" >> requeued; fi',
        "python": 'echo $RANK $WORLD_SIZE $MASTER_ADDR "$@" > started',
    }
    for name, line in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_NTASKS": "16", "SLURM_JOB_ID": "7"}
    environment["SLURM_CPUS_PER_TASK"] = "4"
    environment["SLURM_JOB_NODELIST"] = "node[1-2]"
    command = [str(REPOSITORY / "scripts" / "pretrain.slurm"), "bert", "my texts", "runs/x", "--max_steps", "9"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    started = (tmp_path / "started").read_text()
    assert started.startswith(
        "0 16 first -m toolkit pretrain bert --corpus my texts --output_dir runs/x --resume --max"
    )
    assert (tmp_path / "requeued").exists() == goes_on


@pytest.mark.slow
def test_benchmarks_of_large_corpora_run(tmp_path, monkeypatch):
    """On a corpus of two megabytes that large_corpus.py makes, toolkit and libraries must agree."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import bench_large_corpus
    import bench_prepare
    import bench_tokenizer
    import benchmarking
    import large_corpus

    monkeypatch.setattr(benchmarking, "RESULTS", tmp_path)
    large_corpus.main(str(tmp_path / "corpus.txt"), gigabytes=0.002)
    bench_tokenizer.main(1, str(tmp_path / "corpus.txt"))
    record = json.loads((tmp_path / "bench_tokenizer.json").read_text())
    assert record["equal with letters in order"] is True
    bench_prepare.main(1, str(tmp_path / "corpus.txt"))
    record = json.loads((tmp_path / "bench_prepare.json").read_text())
    assert record["pieces"] > 100_000
    bench_large_corpus.main(0.002)
    formats = json.loads((tmp_path / "bench_large_corpus.json").read_text())["formats"]
    assert set(formats) == {"txt", "jsonl", "parquet"}
    assert all(found["tokenizer"]["peak_memory_mb"] > 50 for found in formats.values())


@pytest.mark.slow
def test_a_slurm_array_prepares_a_corpus(corpus, encoders, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    for number in ("0", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", number)
        run_script("prepare.slurm", corpus, encoders["bert"], tmp_path, "--max_length", "24")
    shards = [tmp_path / "shard_0", tmp_path / "shard_1"]
    done = run_toolkit("prepare", "merge", *shards, "--output_dir", tmp_path / "windows")
    assert done.returncode == 0, done.stderr
    flags = ["--tokenizer", encoders["bert"], "--max_length", "24", "--output_dir", tmp_path / "whole"]
    assert run_toolkit("prepare", "bert", "--corpus", corpus, *flags).returncode == 0
    assert same(tmp_path / "windows", tmp_path / "whole")
