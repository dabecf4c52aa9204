"""Nothing that only POSIX has is imported without a guard: a tiny journey where such modules are hidden."""

import json

import pytest
from conftest import REPOSITORY
from forks import run_forked

WITHOUT_POSIX = """
import os, signal, sys
from pathlib import Path
for name in ("resource", "pwd", "grp", "syslog", "termios", "tty"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "SIGHUP", "alarm", "pthread_kill"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("getuid", "getppid", "sched_getaffinity"):
    delattr(os, name)
read_text = Path.read_text
def no_proc(path, *arguments, **options):
    if str(path).startswith("/proc/"):
        raise FileNotFoundError(path)
    return read_text(path, *arguments, **options)
Path.read_text = no_proc
import psutil
memory = psutil.Process.memory_info
class OfWindows:
    peak_wset = 123_000_000
psutil.Process.memory_info = lambda process: OfWindows
for name in [name for name in sys.modules if name.split(".")[0] in ("toolkit", "tasks")]:
    del sys.modules[name]  # to be imported again, without what is special
from toolkit.cli.dispatch import main
sys.exit(main(sys.argv[1:]) if len(sys.argv) > 1 else 0)
"""


@pytest.mark.slow
def test_a_run_on_windows_needs_nothing_of_posix(corpus, tmp_path):
    script = tmp_path / "without_posix.py"
    script.write_text(WITHOUT_POSIX)
    encoder, tagger = tmp_path / "encoder", tmp_path / "tagger"
    commands = [
        [
            "pretrain",
            "bert",
            "--corpus",
            corpus,
            "--preset",
            "bert-tiny",
            "--vocab_size",
            "500",
            "--output_dir",
            encoder,
        ],
        ["finetune", "pos", "--encoder", encoder, "--data", "sample", "--train_size", "20", "--output_dir", tagger],
        ["predict", tagger, "The dog barks."],
    ]
    for number, command in enumerate(commands):
        words = [*map(str, command), *(["--max_steps", "2"] if number < 2 else [])]
        done = run_forked(words, REPOSITORY, script=script)
        assert done.returncode == 0, done.stderr
    assert json.loads((tagger / "results.json").read_text())["peak_memory_mb"] == 123
