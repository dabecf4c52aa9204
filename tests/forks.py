"""The command line in processes forked from one that has loaded the libraries: seconds less than a new interpreter.

Several are to one another what torchrun makes of them, by the same variables.
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
    "evaluate",
    "gensim.models",
    "sklearn.metrics",
    "tasks.finetuning",
    "tasks.comparison",
    "toolkit.models",
    "toolkit.pretraining",
    "toolkit.training.loop",
    "toolkit.transfer.word_vectors",
)
TIMEOUT = 500
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(LOADED))


def run_forked(
    arguments: list[str],
    cwd: Path,
    stdin: str = "",
    num_processes: int = 1,
    script: Path | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess:
    """`toolkit` with these arguments, or `script`. The exit code is of the first process that failed, the output that
    of all. Raises `subprocess.TimeoutExpired` as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as folder:
        processes, outputs = [], []
        for rank, variables in enumerate(_variables(num_processes)):
            files = [Path(folder) / f"{name}{rank}" for name in ("stdin", "stdout", "stderr")]
            files[0].write_text(stdin, encoding="utf-8")
            variables |= environment or {}
            process = _context.Process(target=_run, args=(arguments, cwd, files, script, variables))
            process.start()
            processes.append(process)
            outputs.append(files[1:])
        for process in processes:
            process.join(TIMEOUT)
        if any(process.exitcode is None for process in processes):
            for process in processes:
                process.kill()
            raise subprocess.TimeoutExpired(arguments, TIMEOUT)
        code = next((process.exitcode for process in processes if process.exitcode), 0)
        stdout, stderr = (
            "".join(file.read_text(encoding="utf-8") for file in files) for files in zip(*outputs, strict=True)
        )
        return subprocess.CompletedProcess(arguments, code, stdout, stderr)


def _variables(num_processes: int) -> list[dict[str, str]]:
    """Those by which torchrun tells each process who it is; none where it is alone."""
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

    os.chdir(cwd)
    os.environ.update(variables)
    if "OMP_NUM_THREADS" in variables:  # torch, which is loaded, does not look any more
        torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))
    if variables.get("HF_HUB_OFFLINE") == "0":  # nor do these
        import datasets
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = False
    if "WITHOUT_SOCKETS" in variables:
        socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = _refuse  # type: ignore[method-assign]
    for number, (file, mode) in enumerate(zip(files, (os.O_RDONLY, *2 * [os.O_WRONLY | os.O_CREAT]), strict=True)):
        os.dup2(os.open(file, mode), number)
    sys.stdin, sys.argv = os.fdopen(0, encoding="utf-8", closefd=False), [str(script or "toolkit"), *arguments]
    if script is not None:
        runpy.run_path(str(script), run_name="__main__")
    code = main(arguments)
    atexit._run_exitfuncs()  # which multiprocessing leaves out
    sys.exit(code)
