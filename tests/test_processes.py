"""Several processes form one run: the same batches, losses, metrics and checkpoints as one process."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import TORCHRUN, run_toolkit
from forks import run_forked
from in_process import run_here
from safetensors.torch import load_file
from test_training import losses

FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
NO_DROPOUT = {
    "bert": {},  # none unless asked for
    "elmo": {"hidden_dropout_prob": 0},
    "electra": {},
    "rnn": {"hidden_dropout_prob": 0},
}
SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in ("elmo", "electra", "rnn")]
TOLERANCE = {"abs": 1e-5, "rel": 1e-6}  # of losses in float32, which has seven digits: those of ELECTRA are about 50
SCRIPT = """
import json, os, sys
from toolkit.training import evaluation, loader
from toolkit.models.families import family_of_preset
from toolkit.cli.dispatch import main

name, without_dropout, seen_folder = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
presets = family_of_preset(name).presets
old = presets[name]

def make(vocab_size, *sizes):
    made = old.make(vocab_size, *sizes)
    made.update(without_dropout)
    return made

presets[name] = old._replace(make=make)
original = loader.collate_pairs

def collate(function, pairs):
    with open(f"{seen_folder}/{os.getpid()}", "a") as file:
        for _, key in pairs:
            if key.counts and key.epoch < evaluation.EVALUATION_EPOCH:
                print(key.epoch, key.index, key.step, file=file)
    return original(function, pairs)

loader.collate_pairs = collate
sys.exit(main(sys.argv[4:]))
"""


class Runs:
    """Pretraining without dropout, with settings that should not change it; records which samples were taken."""

    def __init__(self, method: str, corpus: Path, root: Path):
        self.method, self.root = method, root
        text = root / "text.txt"  # of some epochs in the steps that are made here
        text.write_text("\n".join(corpus.read_text(encoding="utf-8").splitlines()[:40]), encoding="utf-8")
        self.script = root / "script.py"
        self.script.write_text(SCRIPT)
        self.flags = ["pretrain", method, "--corpus", str(text), "--preset", f"{method}-tiny", "--vocab_size", "500"]
        self.flags += ["--max_length", "24", "--batch_size", "32", "--logging_steps", "1"]

    def run(self, name: str, *flags: str, num_processes: int = 1, **environment: str) -> Path:
        seen = self.root / f"{name}-seen"
        seen.mkdir(exist_ok=True)
        preset, without_dropout = f"{self.method}-tiny", json.dumps(NO_DROPOUT[self.method])
        arguments = [preset, without_dropout, str(seen), *self.flags, "--output_dir", str(self.root / name), *flags]
        environment = {"OMP_NUM_THREADS": "1", **environment}
        done = run_forked(
            arguments, self.root, num_processes=num_processes, script=self.script, environment=environment
        )
        assert done.returncode == 0, done.stderr
        assert ("resuming from" in done.stdout) == ("--resume" in flags)
        return self.root / name

    def seen(self, name: str) -> Counter:
        """How often each sample of each epoch was taken, in the steps of the run."""
        num_steps = json.loads((self.root / name / "results.json").read_text())["num_steps"]
        files = (self.root / f"{name}-seen").iterdir()
        lines = [tuple(map(int, line.split())) for file in files for line in file.read_text().splitlines()]
        return Counter((epoch, example) for epoch, example, step in lines if step < num_steps)


@pytest.mark.parametrize("method", ["bert", *SLOW])
def test_processes_and_accumulation_share_one_global_batch(method, corpus, tmp_path):
    """One process with 32, two with 16 each, one with 8 four times: the same losses, each example once an epoch."""
    runs = Runs(method, corpus, tmp_path)
    steps = ("--max_steps", "50", "--save_steps", "45")
    one = runs.run("one", *steps)
    two = runs.run("two", *steps, num_processes=2)
    accumulated = runs.run("accumulated", *steps, "--gradient_accumulation_steps", "4")
    expected = losses(one)
    assert len(expected) == 50
    assert expected[-1] < expected[0]
    assert losses(two) == pytest.approx(expected, **TOLERANCE)
    assert losses(accumulated) == pytest.approx(expected, **TOLERANCE)

    seen = runs.seen("one")
    assert runs.seen("two") == runs.seen("accumulated") == seen
    assert set(seen.values()) == {1}
    num_whole_epochs = max(epoch for epoch, _ in seen)
    assert num_whole_epochs >= 2
    num_examples = len({example for epoch, example in seen if epoch == 0})
    assert all((epoch, example) in seen for epoch in range(num_whole_epochs) for example in range(num_examples))

    # One process resumes from what two saved, and the other way round.
    for folder, num_processes in ((two, 1), (one, 2)):
        (folder / "results.json").unlink()
        runs.run(folder.name, *steps, "--resume", num_processes=num_processes)
        assert losses(folder) == pytest.approx(expected, **TOLERANCE)
    assert set(runs.seen("two").values()) == {1, 2}, "of the steps after the checkpoint each example a second time"
    again = [pair for pair, count in runs.seen("two").items() if count == 2]
    assert len(again) == 5 * 32


def test_recurrent_states_continue_through_a_checkpoint_and_in_any_number_of_processes(corpus, tmp_path):
    runs = Runs("elmo", corpus, tmp_path)
    steps = ("--max_steps", "12", "--save_steps", "10", "--consecutive_windows", "4")
    one = runs.run("one", *steps)
    expected = losses(one)
    anew = runs.run("anew", *steps[:-1], "1")
    assert losses(anew) != pytest.approx(expected, abs=1e-3)
    for flags, num_processes in ((("--gradient_accumulation_steps", "2"), 1), ((), 2)):
        (one / "results.json").unlink()
        runs.run("one", *steps, *flags, "--resume", num_processes=num_processes)
        assert losses(one) == pytest.approx(expected, **TOLERANCE)


@pytest.mark.parametrize("method", ["bert", *SLOW])
def test_sharded_parameters_train_like_copied_ones(method, corpus, tmp_path):
    """FSDP2 over two gloo processes, compared with DDP; one process resumes from what FSDP2 saved."""
    runs = Runs(method, corpus, tmp_path)
    steps = ("--max_steps", "20", "--save_steps", "8", "--eval_steps", "10")
    copied = runs.run("copied", *steps, num_processes=2)
    shared = runs.run("shared", *steps, num_processes=2, **FSDP2)
    assert losses(shared) == pytest.approx(losses(copied), **TOLERANCE)
    expected, found = (load_file(folder / "model.safetensors") for folder in (copied, shared))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=0)
    config = json.loads((shared / "config.json").read_text())
    assert config["architectures"] == json.loads((copied / "config.json").read_text())["architectures"]
    (shared / "results.json").unlink()
    runs.run("shared", *steps, "--resume")
    assert losses(shared) == pytest.approx(losses(copied), **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bert", *SLOW])
def test_a_compiled_model_trains_the_same(method, corpus, tmp_path):
    runs = Runs(method, corpus, tmp_path)
    plain = runs.run("plain", "--max_steps", "6")
    compiled = runs.run("compiled", "--max_steps", "6", "--torch_compile")
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)


@pytest.mark.parametrize("family", ["elmo", pytest.param("bert", marks=pytest.mark.slow)])
def test_fine_tuning_with_sharded_parameters(family, encoders, tmp_path):
    """Over three processes, one of which has no row of a head for two labels; it also resumes from its checkpoint."""
    rows = [
        {"text": f"a {'good' if i % 2 else 'bad'} film, the {i}th", "label": ["no", "yes"][i % 2]} for i in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = ["finetune", "text", "--encoder", encoders[family], "--data", tmp_path / "rows.jsonl", "--output_dir"]
    flags += [tmp_path / "model", "--max_steps", "6", "--batch_size", "9", "--save_steps", "4", "--logging_steps", "1"]
    done = run_toolkit(*flags, num_processes=3, **FSDP2)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "model" / "results.json").read_text())
    assert record["n"] == sum(1 for _ in (tmp_path / "model" / "predictions.jsonl").open())
    expected, weights = losses(tmp_path / "model"), load_file(tmp_path / "model" / "model.safetensors")
    moments = load_file(tmp_path / "model" / "checkpoint-00000004" / "optimizer.safetensors")
    for name, tensor in weights.items():
        assert moments[f"{name}.exp_avg_sq"].shape == tensor.shape
    (tmp_path / "model" / "results.json").unlink()
    done = run_toolkit(*flags, "--resume", num_processes=3, **FSDP2)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert losses(tmp_path / "model") == pytest.approx(expected, abs=1e-6)
    for name, tensor in load_file(tmp_path / "model" / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-6, rtol=0)


def test_a_figure_of_1001_rows_is_the_same_however_many_processes(encoders, tmp_path):
    rows = [
        {"text": f"the {'good' if i % 3 else 'bad'} film number {i}", "label": ["no", "yes"][i % 2]}
        for i in range(1001)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ["--data", tmp_path / "rows.jsonl"]
    flags = ["--encoder", encoders["elmo"], *data, "--train_size", "40", "--max_steps", "8"]
    done = run_here("finetune", "text", *flags, "--output_dir", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    scores = {}
    for name, num_processes in (("one", 1), ("two", 2)):
        output = ["--output_file", tmp_path / f"{name}.json"]
        done = run_toolkit("score", tmp_path / "model", *data, *output, num_processes=num_processes)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / f"{name}.json").read_text())
        assert record["n"] == 1001
        scores[name] = record["metrics"]
    assert scores["one"] == scores["two"]
    assert 0 < scores["one"]["accuracy"]["value"] < 1


@pytest.mark.slow
def test_word2vec_says_that_one_process_trains(corpus, tmp_path):
    flags = ["--corpus", corpus, "--output_dir", tmp_path / "out", "--preset", "word2vec-tiny"]
    flags += ["--num_train_epochs", "1"]
    done = run_toolkit("pretrain", "word2vec", *flags, launcher=(*TORCHRUN, "-m"), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "main process" in done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
