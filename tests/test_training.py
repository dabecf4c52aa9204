"""The training loop: sampling, weighting, limits, interruption and resuming."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, run_toolkit
from forks import ForkedRun
from in_process import run_here
from safetensors.torch import load_file

from toolkit.errors import InputError
from toolkit.training.arguments import TrainingArguments
from toolkit.training.evaluation import EVALUATION_EPOCH
from toolkit.training.sampler import BatchSampler, SampleKey, split_batch
from toolkit.training.schedule import Budget, learning_rate_factor


@pytest.mark.parametrize("lengths", [None, list(range(23))])
@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])
def test_every_sample_comes_once_per_epoch(lengths, batch_size):
    sampler = BatchSampler(23, batch_size, seed=5, lengths=lengths)
    keys = [key for step in range(-(-69 // batch_size)) for key in sampler.batch(step)][:69]
    for epoch in range(3):
        part = keys[23 * epoch : 23 * (epoch + 1)]
        assert {key.epoch for key in part} == {epoch}
        assert Counter(key.index for key in part) == Counter(range(23))
    if lengths is None or batch_size < 23:  # in one batch sorted by length the order is always the same
        assert [d.index for d in keys[:23]] != [d.index for d in keys[23:46]]


def test_consecutive_windows_have_the_same_position_in_the_batch():
    sampler = BatchSampler(23, batch_size=4, seed=0, consecutive=3)
    batches = [sampler.batch(step) for step in range(12)]
    for before, after in pairwise(batches):
        for old, new in zip(before, after, strict=True):
            assert new.continues == (new.step % 3 > 0)
            assert new.backwards == (new.step // 3 in (1, 3))
            if new.continues:
                assert new.index - old.index == (-1 if new.backwards else 1)
    for epoch in range(2):  # 7 runs of 3 with 2 left over
        seen = Counter(key.index for batch in batches for key in batch if key.epoch == epoch)
        assert len(seen) == 21
        assert set(seen.values()) == {1}


def test_the_batch_of_a_step_needs_no_earlier_steps():
    sampler, other = (BatchSampler(1000, 32, seed=1) for _ in range(2))
    replayed = [sampler.batch(step) for step in range(200)]
    assert other.batch(150) == replayed[150]
    assert BatchSampler(1000, 32, seed=2).batch(150) != replayed[150]


def test_batches_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 100, 3203)
    spread = {}
    for name, given in (("bucketed", lengths), ("plain", None)):
        sampler = BatchSampler(3203, 32, seed=0, lengths=given)
        batches = [lengths[[d.index for d in sampler.batch(step)]] for step in range(100, 200)]  # the second epoch
        spread[name] = np.mean([batch.max() - batch.min() for batch in batches])
    assert spread["bucketed"] < spread["plain"] / 10


@pytest.mark.parametrize(("num_samples", "num_parts"), [(32, 4), (7, 4), (2, 4), (1, 3)])
def test_parts_of_a_batch_count_each_sample_once(num_samples, num_parts):
    keys = BatchSampler(100, num_samples, seed=0).batch(0)
    parts = split_batch(keys, num_parts)
    assert len(parts) == num_parts
    assert all(parts)
    assert [key for part in parts for key in part if key.counts] == keys
    sizes = [sum(key.counts for key in part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_budget_of_epochs_ends_with_the_epoch():
    budget = Budget.of(TrainingArguments(num_train_epochs=3, batch_size=10), num_samples=23)
    assert budget.max_steps == 7
    sampler = BatchSampler(23, 10, 0, max_samples=budget.max_samples)
    assert [len(sampler.batch(step)) for step in range(7)] == [10] * 6 + [9]


def test_the_first_limit_ends_the_run():
    budget = Budget.of(TrainingArguments(max_steps=100, max_minutes=1.0), num_samples=5)
    assert budget.progress(50, 6.0) == 0.5
    assert budget.progress(1, 59.0) == pytest.approx(59 / 60)
    assert budget.progress(1, 61.0) == 1.0
    with pytest.raises(InputError, match="how long to train"):
        Budget.of(TrainingArguments(), num_samples=5)


def test_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate_factor(progress, 0.2) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])
    assert learning_rate_factor(0.0, 0.0) == 1.0


@pytest.mark.parametrize(
    ("flag", "value"),
    [("max_steps", -1), ("max_minutes", 0), ("num_train_epochs", -0.5), ("batch_size", 0), ("warmup_ratio", 1.5)],
)
def test_impossible_settings_are_named(flag, value):
    with pytest.raises(InputError, match=f"--{flag} {value}"):
        TrainingArguments(**{flag: value})


# Runs, through the command line

TINY = {
    "bert": ["--preset", "bert-tiny", "--vocab_size", "500", "--embeddings", "random"],
    "elmo": ["--preset", "elmo-tiny", "--vocab_size", "500", "--num_negatives", "64"],
}
SIX_STEPS = ["--max_steps", "6", "--batch_size", "8", "--logging_steps", "1"]


def command_of(method: str, corpus: Path, output_dir: Path, *flags: str) -> list[str]:
    common = ["--corpus", str(corpus), "--output_dir", str(output_dir), "--max_length", "24"]
    return ["pretrain", method, *common, *TINY[method], *flags]


def pretrain(method: str, corpus: Path, output_dir: Path, *flags: str):
    done = run_here(*command_of(method, corpus, output_dir, *flags))
    assert done.returncode == 0, done.stderr
    return done


def finetune(task: str, encoder: Path, output_dir: Path, *flags: str) -> None:
    flags = ("--encoder", encoder, "--data", "sample", "--output_dir", output_dir, *flags)
    done = run_here("finetune", task, *flags)
    assert done.returncode == 0, done.stderr


def losses(folder: Path, figure: str = "loss") -> list[float]:
    lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    return [line[figure] for line in lines if figure in line]


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def interrupted_copy(run: Path, folder: Path) -> Path:
    """A copy of the run as if it had been killed before it wrote its record."""
    shutil.copytree(run, folder)
    (folder / "results.json").unlink()
    return folder


@pytest.fixture(scope="module")
def six_steps(corpus, tmp_path_factory) -> dict[str, Path]:
    """Runs of six steps, each in a process of its own."""
    root = tmp_path_factory.mktemp("six-steps")
    for method in TINY:
        done = run_toolkit(*command_of(method, corpus, root / method, *SIX_STEPS))
        assert done.returncode == 0, done.stderr
    return {method: root / method for method in TINY}


# Losses of the first steps, at full precision; a change in any part of the way to them shows here.
GOLDEN = {
    "bert": [
        6.201281411307199,
        6.290037427629743,
        6.206299373081753,
        6.0742356436593195,
        6.146993909563337,
        6.050276620047433,
    ],
    "elmo": [
        5.625285508897569,
        5.4275563557942705,
        4.647816297743056,
        4.6409782174588585,
        4.307657199435764,
        4.279398600260417,
    ],
}


@pytest.mark.parametrize("method", TINY)
def test_the_same_command_and_seed_give_the_same_bytes(method, six_steps, corpus, tmp_path):
    """Repeat the run in another process, after other runs."""
    torch.rand(17)
    pretrain(method, corpus, tmp_path / "second", *SIX_STEPS)
    pretrain(method, corpus, tmp_path / "third", *SIX_STEPS)
    pretrain(method, corpus, tmp_path / "other_seed", *SIX_STEPS, "--seed", "1")
    first = six_steps[method]
    assert weights_of(first) == weights_of(tmp_path / "second") == weights_of(tmp_path / "third")
    assert weights_of(first) != weights_of(tmp_path / "other_seed")
    modes = {path.stat().st_mode for path in first.iterdir() if path.is_file()}
    assert len(modes) == 1  # whoever may read the other files may read the weights
    assert losses(first) == losses(tmp_path / "second")
    assert losses(first) == pytest.approx(GOLDEN[method], rel=1e-5)


@pytest.mark.parametrize("method", TINY)
def test_bfloat16_trains_nearly_the_same_and_keeps_float32_weights(method, corpus, tmp_path):
    pretrain(method, corpus, tmp_path / "out", *SIX_STEPS, "--bf16")
    found = losses(tmp_path / "out")
    assert found == pytest.approx(GOLDEN[method], rel=0.01)
    assert found != pytest.approx(GOLDEN[method], rel=1e-5), "products were rounded"
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_the_checkpoint_does_not_keep_the_dropout_of_pretraining(corpus, tmp_path):
    flags = ["--max_steps", "2", "--batch_size", "8", "--logging_steps", "1", "--dropout", "0.3"]
    pretrain("bert", corpus, tmp_path / "out", *flags)
    assert losses(tmp_path / "out") != pytest.approx(GOLDEN["bert"][:2], rel=1e-3)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0.1


def test_float16_trains_nearly_the_same_and_resumes_with_its_loss_scale(six_steps, corpus, tmp_path):
    flags = [*SIX_STEPS, "--save_steps", "4", "--fp16"]
    pretrain("bert", corpus, tmp_path / "whole", *flags)
    found = losses(tmp_path / "whole")
    assert found == pytest.approx(GOLDEN["bert"], rel=0.01)
    assert found != pytest.approx(GOLDEN["bert"], rel=1e-6), "products were rounded"
    norms = losses(tmp_path / "whole", "grad_norm")
    assert norms == pytest.approx(losses(six_steps["bert"], "grad_norm"), rel=0.05), "clipped as scaled"
    state = json.loads((tmp_path / "whole" / "checkpoint-00000004" / "training_state.json").read_text())
    assert state["loss_scale"]["_growth_tracker"] == 4
    resumed = interrupted_copy(tmp_path / "whole", tmp_path / "resumed")
    pretrain("bert", corpus, resumed, *flags, "--resume")
    assert weights_of(resumed) == weights_of(tmp_path / "whole")
    assert losses(resumed) == found


def test_gradient_checkpointing_gives_the_same_losses(corpus, tmp_path):
    pretrain("bert", corpus, tmp_path / "bert", *SIX_STEPS, "--gradient_checkpointing")
    assert losses(tmp_path / "bert") == pytest.approx(GOLDEN["bert"], rel=1e-5)
    done = run_here(*command_of("elmo", corpus, tmp_path / "elmo", *SIX_STEPS, "--gradient_checkpointing"))
    assert done.returncode == 2
    assert "--gradient_checkpointing: ElmoForPreTraining does not support it" in done.stderr


def test_a_tracker_receives_the_figures_of_the_log(corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = ["--max_steps", "6", "--batch_size", "8", "--logging_steps", "2", "--report_to", "tensorboard"]
    pretrain("bert", corpus, tmp_path / "out", *flags)
    events = EventAccumulator(str(next((tmp_path / "out").rglob("events.out*")).parent)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in found] == [2, 4, 6]
    assert [value for _, value in found] == pytest.approx(losses(tmp_path / "out"))
    assert events.Scalars("validation_loss")


def test_a_tracker_that_is_not_installed_is_named(corpus, tmp_path):
    done = run_here(*command_of("bert", corpus, tmp_path / "out", "--report_to", "wandb"))
    assert done.returncode == 2
    assert "--report_to wandb: not installed, try: pip install wandb" in done.stderr


def test_resuming_equals_never_having_stopped(corpus, tmp_path):
    flags = [
        "--max_steps",
        "12",
        "--batch_size",
        "8",
        "--logging_steps",
        "1",
        "--save_steps",
        "5",
        "--eval_steps",
        "4",
    ]
    pretrain("bert", corpus, tmp_path / "whole", *flags)
    # The last checkpoint is that of step 10; what came after it is done again.
    stopped = interrupted_copy(tmp_path / "whole", tmp_path / "stopped")
    done = pretrain("bert", corpus, stopped, *flags, "--resume")
    assert "resuming from" in done.stdout
    assert "checkpoint-00000010" in done.stdout
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(stopped)
    kept = sorted(path.name for path in (tmp_path / "whole").glob("checkpoint-*"))
    assert kept == ["checkpoint-00000005", "checkpoint-00000010"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--output_bias", "frequencies"],
        ["--embeddings", "word2vec"],
        ["--attention", "random"],
        ["--optim", "muon"],
        ["--whole_word_mask"],
        ["--mlm_probability", "0.4", "--mlm_probability_end", "0.1"],
        ["--packing", "lines"],
        "--packing lines --mlm_probability_end 0.3 --whole_word_mask --optim muon --dropout 0.1".split(),
    ],
    ids=" ".join,
)
def test_each_option_of_bert_changes_the_weights_and_resumes(flags, corpus, tmp_path):
    flags = [*SIX_STEPS, "--save_steps", "4", *flags]
    pretrain("bert", corpus, tmp_path / "whole", *flags)
    stopped = interrupted_copy(tmp_path / "whole", tmp_path / "stopped")
    pretrain("bert", corpus, stopped, *flags, "--resume")
    assert weights_of(stopped) == weights_of(tmp_path / "whole")
    assert losses(stopped) == losses(tmp_path / "whole")
    assert losses(stopped) != pytest.approx(GOLDEN["bert"], rel=1e-5)


def test_the_flags_of_a_bert_are_recorded_and_repeat(corpus, tmp_path):
    flags = "--max_steps 2 --batch_size 8 --logging_steps 1 --packing lines --mlm_probability 0.4 --dropout 0.1"
    flags += " --mlm_probability_end 0.2 --whole_word_mask --embeddings word2vec --output_bias frequencies"
    flags += " --attention random --optim muon --learning_rate 2e-3"
    for name in ("first", "second"):
        pretrain("bert", corpus, tmp_path / name, *flags.split())
    record = json.loads((tmp_path / "first" / "results.json").read_text())
    expected = {"packing": "lines", "mlm_probability_end": 0.2, "embeddings": "word2vec", "attention": "random"}
    assert {name: record["arguments"][name] for name in expected} == expected
    assert weights_of(tmp_path / "first") == weights_of(tmp_path / "second")
    assert losses(tmp_path / "first") == losses(tmp_path / "second")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--consecutive_windows", "0"], "--consecutive_windows 0: expected"),
        (["--consecutive_windows", "1000000"], "--consecutive_windows 1000000: the text to train on fills only"),
        (
            ["--consecutive_windows", "2", "--batch_size", "7", "--gradient_accumulation_steps", "2"],
            "--batch_size 7: expected",
        ),
    ],
)
def test_recurrent_states_that_do_not_fit_are_refused_before_anything_is_written(flags, message, corpus, tmp_path):
    done = run_here(*command_of("elmo", corpus, tmp_path / "run", "--max_steps", "2", *flags))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags", [{}, {"packing": "lines", "generator_size": 1.0, "embeddings": "random", "bf16": True}]
)
def test_electra_is_deterministic_resumes_and_saves_its_last_weights(flags, corpus, tmp_path):
    from transformers import ElectraForPreTraining

    from toolkit.pretraining import pretrain

    same = {"corpus": str(corpus), "preset": "electra-tiny", "vocab_size": 500, "max_length": 24, "batch_size": 8}
    same |= {"max_steps": 6, "logging_steps": 1, "eval_steps": 3, "save_steps": 4, "learning_rate": 1e-2}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        record = pretrain("electra", output_dir=str(folder), **same, **flags)
    assert weights_of(whole) == weights_of(stopped)
    (stopped / "results.json").unlink()
    pretrain("electra", output_dir=str(stopped), **same, **flags, resume=True)
    assert weights_of(whole) == weights_of(stopped)
    assert losses(whole) == losses(stopped)
    model, loading = ElectraForPreTraining.from_pretrained(whole, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert record["parameters"] == model.num_parameters()
    widths = {
        value.shape[0]
        for name, value in load_file(whole / "checkpoint-00000004" / "model.safetensors").items()
        if name.startswith("generator.encoder.layer.0.attention.self.query")
    }
    assert widths == {128 if flags else 64}


@pytest.mark.parametrize(("flag", "value"), [("dropout", 1.0), ("mlm_probability", 0.0), ("mlm_probability_end", 1.5)])
def test_impossible_settings_of_a_bert_are_named(flag, value):
    from toolkit.pretraining import pretrain

    with pytest.raises(InputError, match=f"--{flag} {value}: expected a fraction"):
        pretrain("bert", corpus="sample", output_dir="out", **{flag: value})


def test_every_method_writes_a_log(encoders):
    for folder in encoders.values():
        lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines]
        assert steps == sorted(steps)
        assert steps[-1] == json.loads((folder / "results.json").read_text())["num_steps"]
        assert any(line.get("words_per_second", line.get("tokens_per_second", 0)) > 0 for line in lines)


def test_a_finished_run_is_not_touched_by_resuming_it(six_steps, corpus):
    folder = six_steps["bert"]
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    pretrain("bert", corpus, folder, *SIX_STEPS, "--resume")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    done = run_here(*command_of("bert", corpus, folder, *SIX_STEPS, "--max_steps", "9", "--resume"))
    assert done.returncode == 2
    assert "is finished and was made with --max_steps 6, not 9" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_resuming_without_a_checkpoint_starts_with_a_message(corpus, tmp_path):
    done = pretrain("bert", corpus, tmp_path / "new", "--max_steps", "2", "--resume")
    assert "nothing to resume" in done.stdout


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_a_checkpoint_and_says_how_to_continue(number, exit_code, corpus, tmp_path):
    folder = tmp_path / "run"
    run = ForkedRun(command_of("bert", corpus, folder, "--max_steps", "100000", "--logging_steps", "1"), REPOSITORY)
    deadline = time.monotonic() + 120
    log = folder / "train_log.jsonl"
    while not (log.is_file() and log.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(run.pids[0], number)
    done = run.wait(timeout=60)
    assert done.returncode == exit_code
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    (checkpoint,) = folder.glob("checkpoint-*")
    step = int(checkpoint.name.split("-")[1])
    assert step == len(losses(folder))
    files = {file.name for file in checkpoint.iterdir()}
    assert files >= {"model.safetensors", "optimizer.safetensors", "config.json"}


def test_training_without_an_output_writes_nothing_and_gives_the_same_weights(tmp_path, monkeypatch):
    from datasets import Dataset

    from toolkit.models.families import presets
    from toolkit.pretraining.bert import MaskTokens
    from toolkit.training.inputs import TrainingData, TrainingOutput
    from toolkit.training.loop import train

    monkeypatch.chdir(tmp_path)
    rows = Dataset.from_dict({"input_ids": torch.randint(5, 60, (20, 12)).tolist()})
    data = TrainingData(rows, MaskTokens(0, 4, [0, 1, 2, 3, 4], 60, seed=0))
    arguments = TrainingArguments(max_steps=4, batch_size=4, logging_steps=1)
    found = []
    for output in (None, TrainingOutput(tmp_path / "out")):
        torch.manual_seed(0)
        from toolkit.models.bert import BertForMaskedLM

        model = BertForMaskedLM(presets()["bert-tiny"].config(60))
        result = train(model, data, arguments, output)
        assert result.num_steps == 4
        found.append(model.state_dict())
        assert {path.name for path in tmp_path.iterdir()} == (set() if output is None else {"out"})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])
    assert len(losses(tmp_path / "out")) == 4
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_non_finite_loss_ends_the_run(corpus, tmp_path):
    flags = [*SIX_STEPS, "--learning_rate", "1e38", "--warmup_ratio", "0", "--optim", "sgd"]
    done = run_here(*command_of("bert", corpus, tmp_path / "out", *flags))
    assert done.returncode == 2
    assert "try a lower --learning_rate" in done.stderr
    assert load_file(tmp_path / "out" / "model.safetensors"), "the weights saved before are still there"


def test_max_minutes_ends_the_run_and_is_recorded(corpus, tmp_path):
    pretrain("bert", corpus, tmp_path / "a", "--max_minutes", "0.05", "--logging_steps", "1")
    record = json.loads((tmp_path / "a" / "results.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "a" / "train_log.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    assert record["num_steps"] == len(rates) > 3
    assert record["deterministic"] is False
    assert rates[-1] < max(rates) / 3
    assert 3 <= record["training_seconds"] < 20


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", [{"max_steps": 8}, {"max_minutes": 0.05}])
def test_sample_keys_hold_the_progress_of_the_run(limit, workers, corpus, tmp_path, monkeypatch):
    """The progress is exact with a limit of steps, also in loader workers, and by the clock with one of minutes."""
    from toolkit.pretraining import bert, pretrain

    original = bert.MaskTokens.__call__

    def collate(self, rows, keys):
        if keys[0].epoch < EVALUATION_EPOCH:
            with open(tmp_path / "seen", "a") as file:
                print(keys[0].step, keys[0].progress, {key.progress for key in keys} == {keys[0].progress}, file=file)
        return original(self, rows, keys)

    monkeypatch.setattr(bert.MaskTokens, "__call__", collate)
    flags = {"preset": "bert-tiny", "vocab_size": 500, "max_length": 24, "batch_size": 8, "eval_steps": 10**6}
    flags |= {"corpus": str(corpus), "output_dir": str(tmp_path / "out"), "embeddings": "random"}
    pretrain("bert", dataloader_num_workers=workers, **limit, **flags)
    lines = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert {same for _, _, same in lines} == {"True"}
    seen = sorted((int(step), float(progress)) for step, progress, _ in lines)
    if "max_steps" in limit:
        assert seen == [(step, step / 8) for step in range(8)]
    else:
        fractions = [progress for _, progress in seen]
        assert fractions == sorted(fractions)
        assert fractions[0] == 0
        assert 0 < fractions[-1] <= 1


def test_a_launcher_that_started_too_few_processes_is_refused(corpus, tmp_path):
    command = command_of("bert", corpus, tmp_path / "x", "--max_steps", "1")
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--mixed_precision", "no", "-m")
    done = run_toolkit(*command, launcher=launcher)
    assert done.returncode != 0
    assert "toolkit: error: the launcher asked for more processes than the 1 that it started" in done.stderr
    assert "torchrun --nproc_per_node" in done.stderr
    assert not (tmp_path / "x").exists()


def test_fine_tuning_twice_gives_the_same_bytes(encoders, tmp_path):
    flags = ["--max_steps", "6", "--train_size", "20", "--word_dropout", "0.1", "--seed", "3"]
    for name in ("first", "second"):
        finetune("pos", encoders["elmo"], tmp_path / name, *flags)
    assert weights_of(tmp_path / "first") == weights_of(tmp_path / "second")


@pytest.mark.parametrize("task", ["pos", "text"])
def test_a_head_on_a_mix_of_layers_is_saved_with_its_encoder(task, encoders, tmp_path):
    finetune(task, encoders["bert"], tmp_path / "out", "--freeze", "--max_steps", "6", "--learning_rate", "1e-2")
    before, after = (load_file(folder / "model.safetensors") for folder in (encoders["bert"], tmp_path / "out"))
    kept = {name: value for name, value in after.items() if name.startswith("encoder.")}
    assert all(torch.equal(value, before[name.replace("encoder.", "bert.", 1)]) for name, value in kept.items())
    assert set(after) - set(kept) == {"scalar_mix.weights", "scalar_mix.scale", "classifier.weight", "classifier.bias"}
    assert after["scalar_mix.weights"].abs().min() > 0
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    done = run_here("score", tmp_path / "out", "--data", "sample", "--output_file", tmp_path / "score.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "score.json").read_text())["metrics"] == record["metrics"]


@pytest.mark.parametrize(("task", "head"), [("pos", {"classifier"}), ("text", {"classifier", "bert.pooler.dense"})])
def test_freeze_trains_the_head_alone(task, head, encoders, tmp_path):
    flags = ["--max_steps", "4", "--freeze", "--layers", "top", "--train_size", "40"]
    finetune(task, encoders["bert"], tmp_path / "out", *flags)
    before, after = (load_file(folder / "model.safetensors") for folder in (encoders["bert"], tmp_path / "out"))
    moved = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    assert {name.rpartition(".")[0] for name in moved} == head


def test_the_encoder_is_frozen_during_head_warmup(encoders, tmp_path):
    flags = ["--max_steps", "10", "--head_warmup_ratio", "0.99", "--train_size", "20"]
    finetune("pos", encoders["bert"], tmp_path / "out", *flags)
    before, after = (load_file(folder / "model.safetensors") for folder in (encoders["bert"], tmp_path / "out"))
    shared = [name for name in after if name in before]
    assert len(shared) > 20
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert after["classifier.weight"].abs().max() > 0


def test_the_schedule_after_a_head_warmup_takes_the_rest_of_the_run():
    assert learning_rate_factor(0.5, 0.1, start=0.5) == 0
    assert learning_rate_factor(0.49, 0.1, start=0.5) == 0
    assert learning_rate_factor(0.55, 0.1, start=0.5) == pytest.approx(1.0)
    assert learning_rate_factor(0.75, 0.1, start=0.5) == pytest.approx(learning_rate_factor(0.5, 0.1))


def test_lower_layers_have_lower_learning_rates(encoders):
    from tasks.finetuning import _parameter_options
    from tasks.task import FinetuneArguments
    from toolkit.modalities import MODALITIES
    from toolkit.runs.arguments import from_flags, with_flags
    from toolkit.transfer.encoders import load_encoder

    flags = {"encoder": "", "data": "", "output_dir": "", "layerwise_lr_decay": 0.25, "head_warmup_ratio": 0.2}
    arguments = from_flags(FinetuneArguments, **flags)
    expected = {
        "bert": {
            "classifier.weight": (1.0, 0.0),
            "bert.encoder.layer.1.output.dense.weight": (1.0, 0.2),
            "bert.encoder.layer.0.output.dense.weight": (0.5, 0.2),
            "bert.embeddings.word_embeddings.weight": (0.25, 0.2),
        },
        "elmo": {
            "classifier.weight": (1.0, 0.0),
            "scalar_mix.weights": (1.0, 0.0),
            "elmo.backward_layers.1.weight_hh_l0": (1.0, 0.2),
            "elmo.forward_layers.0.weight_hh_l0": (0.5, 0.2),
            "elmo.character_encoder.convolutions.1.weight": (0.25, 0.2),
        },
        "fasttext": {"window.window.weight": (1.0, 0.0), "fasttext.ngram_embeddings.weight": (1.0, 0.2)},
        "word2vec": {"window.window.weight": (1.0, 0.0), "word2vec.embeddings.weight": (1.0, 0.2)},
    }
    for family, names in expected.items():
        auto_class = "AutoModelForTokenClassification"
        model, _ = load_encoder(str(encoders[family]), auto_class, MODALITIES["text"], num_labels=3)
        options = _parameter_options(model, arguments)
        assert {name: tuple(options(name)) for name in names} == names
        options = _parameter_options(model, with_flags(arguments, encoder=f"scratch:{encoders[family]}"))
        assert {tuple(options(name)) for name in names} == {(1.0, 0.0)}


def test_word_dropout_replaces_whole_words_at_the_given_rate():
    from tasks.text_task import NO_WORD, drop_words, first_tokens

    words = [NO_WORD, *(word for word in range(2000) for _ in range(1 + word % 3)), NO_WORD]
    row = {"input_ids": [2, *range(10, 10 + len(words) - 2), 3], "words": words, "labels": list(range(2000))}
    dropped = drop_words(row, 0.2, 1, SampleKey(0, 0, 7).seed(0))
    assert dropped == drop_words(row, 0.2, 1, SampleKey(3, 0, 7).seed(0)), "the same in the same epoch"
    assert dropped != drop_words(row, 0.2, 1, SampleKey(0, 1, 7).seed(0)), "another in another"
    assert len(first_tokens(dropped["words"])) == 2000
    unknown = [word for piece, word in zip(dropped["input_ids"], dropped["words"], strict=True) if piece == 1]
    assert len(unknown) == len(set(unknown))
    assert 0.17 < len(unknown) / 2000 < 0.23
    kept = {word: [] for word in range(2000)}
    for piece, word in zip(dropped["input_ids"][1:-1], dropped["words"][1:-1], strict=True):
        kept[word].append(piece)
    for word in set(range(2000)) - set(unknown):
        assert len(kept[word]) == 1 + word % 3
    assert dropped["input_ids"][0] == 2
    assert dropped["input_ids"][-1] == 3
