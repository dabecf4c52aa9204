"""The command line in this process, or in processes forked from one that has loaded the libraries.

A fork saves the seconds in which a new interpreter imports them. Several forks get the variables that torchrun sets,
and form one run.
"""

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

LOADED = (
    "datasets",
    "evaluate",
    "gensim.models",
    "matplotlib.pyplot",
    "sklearn.metrics",
    "timm",
    "torchvision.transforms.v2",
    "tasks.finetuning",
    "tasks.comparison",
    "toolkit.models",
    "toolkit.modalities.images",
    "toolkit.pretraining",
    "toolkit.training.loop",
    "toolkit.transfer.word_vectors",
)
TIMEOUT = 500
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(LOADED))


class ForkedRun:
    """`toolkit` with these arguments, or a script, in one or more processes that are running.

    Args:
        arguments: The words after `toolkit` or the script.
        cwd: Working directory.
        stdin: Text on standard input.
        num_processes: Number of processes.
        script: Script to run instead of `toolkit`.
        environment: Variables to set.
    """

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        stdin: str = "",
        num_processes: int = 1,
        script: Path | None = None,
        environment: dict[str, str] | None = None,
    ):
        self.arguments = arguments
        self._folder = tempfile.TemporaryDirectory()
        self._processes, self._outputs = [], []
        for rank, variables in enumerate(_variables(num_processes)):
            files = [Path(self._folder.name) / f"{name}{rank}" for name in ("stdin", "stdout", "stderr")]
            files[0].write_text(stdin, encoding="utf-8")
            variables |= environment or {}
            process = _context.Process(target=_run, args=(arguments, cwd, files, script, variables))
            process.start()
            self._processes.append(process)
            self._outputs.append(files[1:])
        self.pids = [process.pid for process in self._processes]

    @property
    def is_running(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def wait(self, timeout: float = TIMEOUT) -> subprocess.CompletedProcess:
        """The exit code is that of the first process that failed, the output that of all.

        Raises:
            subprocess.TimeoutExpired: The processes took too long and were killed.
        """
        with self._folder:
            for process in self._processes:
                process.join(timeout)
            if any(process.exitcode is None for process in self._processes):
                for process in self._processes:
                    process.kill()
                raise subprocess.TimeoutExpired(self.arguments, timeout)
            code = next((process.exitcode for process in self._processes if process.exitcode), 0)
            stdout, stderr = (
                "".join(file.read_text(encoding="utf-8") for file in files)
                for files in zip(*self._outputs, strict=True)
            )
            return subprocess.CompletedProcess(self.arguments, code, stdout, stderr)


def run_forked(arguments: list[str], cwd: Path, *others, **options) -> subprocess.CompletedProcess:
    """A `ForkedRun` that has ended."""
    return ForkedRun(arguments, cwd, *others, **options).wait()


def _variables(num_processes: int) -> list[dict[str, str]]:
    """The variables by which torchrun tells each process who it is; none for a single process."""
    if num_processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    shared |= {"WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes), "OMP_NUM_THREADS": "1"}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]


def _refuse(*arguments, **flags):
    raise AssertionError(f"somebody asked for the network: {arguments}")


def _run(arguments: list[str], cwd: Path, files: list[Path], script: Path | None, variables: dict[str, str]) -> None:
    import torch

    from toolkit.cli.dispatch import main

    multiprocessing.set_start_method("fork", force=True)  # or its workers would wait for another server like this one
    os.chdir(cwd)
    os.environ.update(variables)
    if "OMP_NUM_THREADS" in variables:  # torch read it when it was loaded
        torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))
    if variables.get("HF_HUB_OFFLINE") == "0":  # and so did these
        import datasets
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = False
    if "WITHOUT_SOCKETS" in variables:
        socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = _refuse  # type: ignore[method-assign]
    for number, (file, mode) in enumerate(zip(files, (os.O_RDONLY, *2 * [os.O_WRONLY | os.O_CREAT]), strict=True)):
        os.dup2(os.open(file, mode), number)
    sys.stdin, sys.argv = os.fdopen(0, encoding="utf-8", closefd=False), [str(script or "toolkit"), *arguments]
    if script is None:
        code = main(arguments)
    else:
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    atexit._run_exitfuncs()  # which multiprocessing leaves out
    sys.exit(code)
