"""The command line in the process of the test: no start-up, for tests whose subject is not the process."""

import contextlib
import io
import os
import re
import subprocess
import sys
from unittest import mock

import datasets

from toolkit.cli.dispatch import main


def run_here(*words, stdin: str = "", **variables: str) -> subprocess.CompletedProcess:
    """Run `toolkit WORDS` in this process with environment variables; its exit code and what it printed."""
    datasets.disable_progress_bars()  # as the command line does before it loads the library
    arguments, out, err = list(map(str, words)), io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "stdin", io.StringIO(stdin)))
        stack.enter_context(mock.patch.object(sys, "argv", ["toolkit", *arguments]))
        stack.enter_context(mock.patch.dict(os.environ, variables))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            code = main(arguments)
        except SystemExit as end:  # of --help and --version
            code = end.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def error_of(done: subprocess.CompletedProcess) -> str:
    """The message of a command that refused its input: one line, perhaps after what its data holds; exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    *of_data, line = done.stderr.strip().splitlines()
    assert all(
        re.match(r"\w+: [\d,]+ examples|not read: |left out of |labels that only ", each) for each in of_data
    ), done.stderr
    assert line.startswith("toolkit: error: ")
    return line
