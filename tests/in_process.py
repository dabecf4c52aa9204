"""The command line in the process of the test: no start-up, for tests whose subject is not the process."""

import contextlib
import io
import subprocess
import sys
from unittest import mock

import datasets

from toolkit.cli.dispatch import main


def run_here(*words, stdin: str = "") -> subprocess.CompletedProcess:
    """Run `toolkit WORDS` in this process; its exit code and what it printed."""
    datasets.disable_progress_bars()  # as the command line does before it loads the library
    arguments, out, err = list(map(str, words)), io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "stdin", io.StringIO(stdin)), mock.patch.object(sys, "argv", ["toolkit", *arguments]):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def error_of(done: subprocess.CompletedProcess) -> str:
    """The message of a command that refused its input: one line, exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("toolkit: error: ")
    return line
