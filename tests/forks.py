"""The command line in processes forked from one that has loaded the libraries: seconds less than a new interpreter."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LOADED = (
    "evaluate",
    "gensim.models",
    "sklearn.metrics",
    "tasks.base",
    "tasks.comparison",
    "toolkit.intrinsic",
    "toolkit.models",
    "toolkit.pretraining",
    "toolkit.training",
)
TIMEOUT = 500
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(LOADED))


def run_forked(arguments: list[str], cwd: Path, stdin: str) -> subprocess.CompletedProcess:
    """Raises `subprocess.TimeoutExpired` as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        files[0].write_text(stdin, encoding="utf-8")
        process = _context.Process(target=_run, args=(arguments, cwd, files))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, TIMEOUT)
        _, stdout, stderr = (file.read_text(encoding="utf-8") for file in files)
        return subprocess.CompletedProcess(arguments, process.exitcode, stdout, stderr)


def _run(arguments: list[str], cwd: Path, files: list[Path]) -> None:
    from toolkit.cli import main

    os.chdir(cwd)
    for number, (file, mode) in enumerate(zip(files, (os.O_RDONLY, *2 * [os.O_WRONLY | os.O_CREAT]), strict=True)):
        os.dup2(os.open(file, mode), number)
    sys.stdin, sys.argv = os.fdopen(0, encoding="utf-8", closefd=False), ["toolkit", *arguments]
    sys.exit(main(arguments))
