"""The recipes run, with a tiny budget, in one process and under torchrun."""

import json
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

TOOLKIT = {
    "one process": f"{sys.executable} -m toolkit",
    "torchrun": f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node 2 -m toolkit",
}


@pytest.mark.slow
@pytest.mark.parametrize("way", TOOLKIT)
def test_recipes_run(way, corpus, tmp_path):
    environment = {**os.environ, "TOOLKIT": TOOLKIT[way], "PYTHONPATH": str(REPOSITORY)}

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [str(REPOSITORY / "scripts" / script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, timeout=1500)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    run("pretrain_text.sh", corpus, tmp_path / "encoders", "0.05", "--vocab_size", "500")
    flags = ["--train_sizes", "20", "--seeds", "2", "--learning_rates", "1e-3", "--max_steps", "3"]
    done = run("transfer_pos.sh", tmp_path / "encoders", "sample", tmp_path / "pos", *flags)
    assert "gain over scratch" in done.stdout
    record = json.loads((tmp_path / "pos" / "results.json").read_text())
    assert [encoder["name"] for encoder in record["encoders"]] == ["bert", "elmo", "word2vec"]
    assert record["seeds"] == [0, 1]
    done = run("transfer_text.sh", tmp_path / "encoders", "sample", tmp_path / "text", *flags, "--baseline")
    assert "TF-IDF + logistic regression" in done.stdout


@pytest.mark.slow
def test_word_vectors_of_three_seeds_are_scored(corpus, tmp_path):
    environment = {**os.environ, "TOOLKIT": TOOLKIT["one process"], "PYTHONPATH": str(REPOSITORY)}
    command = [REPOSITORY / "scripts" / "word_vectors.sh", corpus, tmp_path / "vectors", "--num_train_epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(path.read_text()) for path in (tmp_path / "vectors").glob("seed?/simlex999.json")]
    assert len({record["metrics"]["spearman"]["value"] for record in found}) == 3


def test_recipes_explain_themselves():
    for script in (REPOSITORY / "scripts").glob("*.sh"):
        text = script.read_text()
        assert text.startswith("#!/usr/bin/env bash\n# ")
        assert f"scripts/{script.name} " in text
        done = subprocess.run([str(script)], capture_output=True, text=True)
        assert done.returncode != 0
        assert "CORPUS" in done.stderr or "ENCODERS_DIR" in done.stderr
