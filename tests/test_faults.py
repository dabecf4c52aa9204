"""Killed runs and failing machines: nothing is lost, and one line says what happened."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY, TORCHRUN
from forks import ForkedRun, run_forked
from in_process import error_of, run_here
from safetensors.torch import load_file

from toolkit.training.checkpoints import STATE_FILE, find_fault, list_checkpoints

TIMES = ("seconds", "words_per_second", "tokens_per_second")


def log_without_times(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def same_run(folder: Path, reference: Path) -> bool:
    assert log_without_times(folder) == log_without_times(reference)
    return (folder / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()


def command_of(task: str, corpus: Path, encoders: dict[str, Path]) -> list[str]:
    """Twelve steps with dropout, shuffling and evaluations, a checkpoint after every third."""
    shared = ["--max_steps", "12", "--batch_size", "8", "--save_steps", "3"]
    shared += ["--eval_steps", "5", "--logging_steps", "2"]
    if task == "pos":
        flags = ["--encoder", str(encoders["bert"]), "--data", "sample", "--train_size", "40", "--word_dropout", "0.1"]
        return ["finetune", "pos", *flags, *shared]
    flags = ["--corpus", str(corpus), "--preset", f"{task}-tiny", "--vocab_size", "500", "--max_length", "24"]
    if task == "elmo":
        flags += ["--consecutive_windows", "2"]
    return ["pretrain", task, *flags, *shared]


def kill(plan: list, *command) -> subprocess.CompletedProcess:
    """Run a command, kill it according to `plan`, and repeat it with --resume until it ends by itself."""
    arguments = [json.dumps(plan), *map(str, command), "--resume"]
    done = run_forked(arguments, REPOSITORY, script=REPOSITORY / "tests" / "kill_runs.py")
    assert done.returncode == 0, done.stderr
    return done


PLANS = {
    0: [
        ["before optimizer step", 2],
        ["after checkpoint rename", 1],
        ["before log write", 2],
        ["while a checkpoint is written", 1],
        ["random", 3.0],
    ],
    2: [
        ["after optimizer step", 5],
        ["before checkpoint rename", 1],
        ["after log write", 3],
        ["before best weights", 1],
        ["while a worker starts", 1],
        ["random", 4.0],
    ],
}


@pytest.mark.parametrize(
    ("task", "num_workers"),
    [
        ("bert", 2),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("bert", 0), ("pos", 0), ("pos", 2), ("elmo", 0), ("elmo", 2))
        ),
    ],
)
def test_a_run_that_is_killed_repeatedly_ends_with_the_same_weights(task, num_workers, corpus, encoders, tmp_path):
    command = command_of(task, corpus, encoders)
    done = run_here(*command, "--output_dir", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    killed = [*command, "--output_dir", tmp_path / "killed", "--dataloader_num_workers", num_workers]
    done = kill(PLANS[num_workers], *killed)
    num_kills = int(done.stdout.partition("kills: ")[2].split()[0])
    assert num_kills >= len(PLANS[num_workers]) - 1  # a random time may come after the end
    assert "resuming from" in done.stdout
    assert same_run(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*partial")), "nothing half-written stays"


@pytest.mark.slow
def test_a_killed_choice_of_learning_rates_resumes(corpus, encoders, tmp_path):
    command = [*command_of("pos", corpus, encoders), "--learning_rates", "1e-3", "3e-3"]
    done = run_here(*command, "--output_dir", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    plan = [["before optimizer step", 14], ["while the best run is copied", 2], ["while the best run is copied", 5]]
    done = kill(plan, *command, "--output_dir", str(tmp_path / "killed"))
    assert "kills: 3" in done.stdout
    whole, killed = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed"))
    assert killed["learning_rates_tried"] == whole["learning_rates_tried"]
    assert killed["metrics"] == whole["metrics"]
    assert same_run(tmp_path / "killed", tmp_path / "whole")
    files = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "killed").iterdir()} == files


@pytest.mark.slow
def test_patience_counts_evaluations_before_a_kill(corpus, encoders, tmp_path):
    """This rate improves nothing, so the first evaluation is the best and the third, after step 6, ends the run."""
    command = [*command_of("pos", corpus, encoders), "--output_dir", tmp_path / "run", "--learning_rate", "1e-12"]
    command += ["--max_steps", "40", "--eval_steps", "2", "--early_stopping_patience", "2"]
    done = kill([["after checkpoint rename", 1]], *command)
    assert "resuming from" in done.stdout
    assert json.loads((tmp_path / "run" / "results.json").read_text())["num_steps"] == 6


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("pos", ["--freeze"], "with other trainable parameters"),
        ("elmo", ["--vocab_size", "400"], "holds another network"),
        ("bert", ["--optim", "muon"], "was made with --optim adamw"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(task, flags, message, corpus, encoders, tmp_path):
    command = [*command_of(task, corpus, encoders), "--max_steps", "3", "--output_dir", tmp_path / "run"]
    done = run_here(*command)
    assert done.returncode == 0, done.stderr
    (tmp_path / "run" / "results.json").unlink()
    log = (tmp_path / "run" / "train_log.jsonl").read_bytes()
    done = run_here(*command, *flags, "--resume")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert (tmp_path / "run" / "train_log.jsonl").read_bytes() == log


def cut_short(checkpoint: Path) -> str:
    with open(checkpoint / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    return "model.safetensors has 1,000 bytes instead of"


def alter_a_byte(checkpoint: Path) -> str:
    with open(checkpoint / "optimizer.safetensors", "r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    return "optimizer.safetensors is not what was written"


def delete_the_optimizer(checkpoint: Path) -> str:
    (checkpoint / "optimizer.safetensors").unlink()
    return "optimizer.safetensors is missing"


def delete_the_manifest(checkpoint: Path) -> str:
    (checkpoint / "manifest.json").unlink()
    return "manifest.json is missing"


@pytest.fixture(scope="module")
def finished(corpus, encoders, tmp_path_factory) -> tuple[list[str], Path]:
    """A run with checkpoints after steps 9 and 12, and the command that made it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    command = command_of("bert", corpus, encoders)
    done = run_here(*command, "--output_dir", folder)
    assert done.returncode == 0, done.stderr
    return command, folder


def stopped_copy(finished, tmp_path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(finished[1], folder)
    (folder / "results.json").unlink()
    return folder


@pytest.mark.parametrize("damage", [cut_short, alter_a_byte, delete_the_optimizer, delete_the_manifest])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(damage, finished, tmp_path):
    folder = stopped_copy(finished, tmp_path)
    fault = damage(folder / "checkpoint-00000012")
    done = run_here(*finished[0], "--output_dir", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"checkpoint-00000012 is damaged: {fault}" in done.stdout
    assert f"resuming from {folder / 'checkpoint-00000009'}" in done.stdout
    assert same_run(folder, finished[1])
    assert find_fault(folder / "checkpoint-00000012") is None


def test_a_run_without_an_intact_checkpoint_does_not_restart_by_itself(finished, tmp_path):
    folder = stopped_copy(finished, tmp_path)
    for checkpoint in list_checkpoints(folder):
        cut_short(checkpoint)
    log = (folder / "train_log.jsonl").read_bytes()
    done = run_here(*finished[0], "--output_dir", folder, "--resume")
    assert done.returncode == 2
    assert "no checkpoint in it is whole" in done.stderr
    assert (folder / "train_log.jsonl").read_bytes() == log


def test_changed_data_order_is_refused_on_resume(finished, tmp_path):
    folder = stopped_copy(finished, tmp_path)
    done = run_here(*finished[0], "--output_dir", folder, "--resume", "--batch_size", "16")
    assert done.returncode == 2
    assert "was made with batch_size 8, not 16" in done.stderr


@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "stopped"])
def test_a_run_whose_labels_have_changed_is_not_resumed(encoders, tmp_path, is_finished):
    data = tmp_path / "data.csv"

    def write(labels: str) -> None:
        data.write_text("text,label\n" + "".join(f"word {n},{labels[n % 2]}\n" for n in range(40)))

    write("ab")
    folder = tmp_path / "run"
    flags = ["--encoder", encoders["word2vec"], "--data", data, "--output_dir", folder, "--max_steps", "4"]
    done = run_here("finetune", "text", *flags, "--save_steps", "2")
    assert done.returncode == 0, done.stderr
    if not is_finished:
        (folder / "results.json").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write("ba")
    message = error_of(run_here("finetune", "text", *flags, "--save_steps", "2", "--resume"))
    assert re.search(f"--resume: .*{folder}.* changed since it began", message)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    write("ab")
    done = run_here("finetune", "text", *flags, "--save_steps", "2", "--resume")
    assert done.returncode == 0, done.stderr
    assert (f"{folder} was finished before, this is its record" in done.stderr) == is_finished


def test_the_number_of_checkpoints_is_limited(finished, corpus, encoders, tmp_path):
    done = run_here(*command_of("pos", corpus, encoders), "--output_dir", tmp_path / "run", "--save_total_limit", "3")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == [f"checkpoint-0000000{n}" for n in "69"] + [
        "checkpoint-00000012"
    ]
    assert [path.name for path in list_checkpoints(finished[1])] == ["checkpoint-00000009", "checkpoint-00000012"]


SMALL_DISK = """
import os, shutil, subprocess, sys
from kill_runs import run

def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "disk"], check=True)

os.mkdir("disk")
mount("size=11m")
print("ended with", run(sys.argv[1:], None, 0), *os.listdir("disk/run"), flush=True)
mount("remount,ro")
print("read-only:", run([*sys.argv[1:], "--resume"], None, 0), flush=True)
mount("remount,rw,size=100m")
print("ended with", run([*sys.argv[1:], "--resume"], None, 0), flush=True)
shutil.copytree("disk/run", "run")
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="a small disk of its own needs `unshare -rm`, which this system does not allow",
)
def test_a_full_disk_does_not_damage_saved_checkpoints(finished, tmp_path):
    command = [*finished[0], "--output_dir", "disk/run"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
    python = ["unshare", "-rm", sys.executable, "-c", SMALL_DISK, *command]
    done = subprocess.run(python, capture_output=True, text=True, env=environment, cwd=tmp_path)
    second = done.stdout.partition("ended with 1")[2]
    assert second, done.stderr
    assert "toolkit: error: cannot save" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "--resume goes on from disk/run/checkpoint-00000003" in done.stderr
    assert "read-only: 2" in second
    assert "cannot be written to" in done.stderr
    assert "partial" not in second.partition("resuming")[0], "nothing half-written stays"
    assert "ended with 0" in second, done.stderr
    assert same_run(tmp_path / "run", finished[1])


def endless(command: list[str], folder: Path) -> list[str]:
    return [*command, "--output_dir", str(folder), "--max_steps", "100000"]


def log_grows(folder: Path, is_running: Callable[[], bool]) -> bool:
    """Wait until the log of a run has some lines; False if the run ends before."""
    log, deadline = folder / "train_log.jsonl", time.monotonic() + 200
    while not (log.is_file() and log.read_text().count("\n") > 4):
        if not is_running() or time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def started(command: list[str], folder: Path, **options) -> ForkedRun:
    """A run without a limit whose log has some lines already."""
    run = ForkedRun(endless(command, folder), REPOSITORY, environment={"OMP_NUM_THREADS": "1"}, **options)
    if not log_grows(folder, lambda: run.is_running):
        pytest.fail(run.wait(1).stderr)
    return run


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def test_a_deleted_folder_ends_the_run(corpus, encoders, tmp_path):
    keep_all = ["--save_total_limit", "100000"]  # what fails is then a save, not the end of an old checkpoint
    run = started([*command_of("bert", corpus, encoders), *keep_all], tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")  # at once, where deleting file by file would race with the run
    done = run.wait(100)
    assert done.returncode == 1, done.stderr
    assert "cannot save" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers of a process in /proc")
def test_a_killed_loader_worker_ends_the_run_with_advice(corpus, encoders, tmp_path):
    command = [*command_of("bert", corpus, encoders), "--dataloader_num_workers", "2"]
    run = started(command, tmp_path / "run")
    os.kill(children(run.pids[0])[0], signal.SIGKILL)
    done = run.wait(100)
    assert done.returncode == 1, done.stderr
    assert "toolkit: error: a process that prepares batches died" in done.stderr
    assert "--resume goes on from" in done.stderr
    assert "Traceback" not in done.stderr


ENDLESS_LOADER = """
import multiprocessing, sys
from itertools import repeat
from toolkit.training.loader import load_batches
from toolkit.training.sampler import SampleKey


def collate(samples, keys):
    return {"samples": samples}


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    keys = [SampleKey(0, 0, 0)]
    for _ in load_batches([1], repeat(keys), collate, num_workers=2):
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_loader_workers_end_with_a_killed_training_process(method, tmp_path):
    (tmp_path / "script.py").write_text(ENDLESS_LOADER)
    command = [sys.executable, tmp_path / "script.py", method]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        workers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        process.kill()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive


def test_a_signal_to_the_whole_job_still_saves(corpus, encoders, tmp_path):
    """The workers receive the signal too, as with Ctrl-C in a terminal or from a scheduler."""
    command = [*command_of("bert", corpus, encoders), "--dataloader_num_workers", "2", "--save_steps", "90000"]
    for number in (signal.SIGUSR1, signal.SIGTERM):
        run = started(command, tmp_path / number.name)
        for pid in [*children(run.pids[0]), *run.pids]:
            os.kill(pid, number)
        done = run.wait(100)
        assert done.returncode == 128 + number, done.stderr
        assert f"stopped by {number.name}" in done.stderr
        assert len(list_checkpoints(tmp_path / number.name)) == 1


SLOW_DISK = """
import sys, time
from toolkit.training import checkpoints as checkpoint
from toolkit.cli.dispatch import main

original = checkpoint._sha256
checkpoint._sha256 = lambda path: time.sleep(0.5) or original(path)
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_to_all_processes_waits_for_the_one_that_writes(corpus, encoders, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SLOW_DISK)
    command = [*command_of("bert", corpus, encoders), "--save_steps", "90000"]
    run = started(command, tmp_path / "run", script=script, num_processes=2)
    for pid in run.pids:
        os.kill(pid, signal.SIGTERM)
    assert "stopped by SIGTERM" in run.wait(100).stderr
    (checkpoint,) = list_checkpoints(tmp_path / "run")
    assert find_fault(checkpoint) is None
    assert not list((tmp_path / "run").glob(".*partial"))


@pytest.mark.parametrize("in_background", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_second_signal_stops_at_once(in_background, corpus, encoders, tmp_path):
    script, folder = tmp_path / "script.py", tmp_path / "run"
    handler = "SIG_IGN" if in_background else "default_int_handler"  # as shells start what runs in the background
    start = f"import signal\nsignal.signal(signal.SIGINT, signal.{handler})\n"
    script.write_text(start + SLOW_DISK.replace("0.5", "300"))
    run = started([*command_of("bert", corpus, encoders), "--save_steps", "90000"], folder, script=script)
    os.kill(run.pids[0], signal.SIGINT)
    deadline = time.monotonic() + 60
    while not list(folder.glob(f".*partial/{STATE_FILE}")):  # written before what takes minutes on this disk
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(run.pids[0], signal.SIGINT)
    done = run.wait(60)
    assert done.returncode == 130
    assert "stopped by" not in done.stderr, "it did not wait for the save"
    assert list_checkpoints(folder) == []


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes of a run in /proc")
def test_a_rank_that_is_killed_does_not_leave_the_other_hanging(corpus, encoders, tmp_path):
    command = endless(command_of("bert", corpus, encoders), tmp_path / "run")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, *TORCHRUN, "-m", "toolkit", *command]
    process = subprocess.Popen(torchrun, stderr=subprocess.PIPE, text=True, env=environment)
    assert log_grows(tmp_path / "run", lambda: process.poll() is None)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    _, messages = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "toolkit: error: another process of this run is gone; --resume goes on from" in messages
    whole = [path for path in list_checkpoints(tmp_path / "run") if find_fault(path) is None]
    assert whole
    assert load_file(whole[-1] / "model.safetensors")
