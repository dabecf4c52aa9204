"""What the benchmarks share: ways of doing the same, run in turns on the same machine, as medians and ratios; what its
processor knows and how fast it multiplies."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from toolkit.runs.output import write_json
from toolkit.runs.results import made_with
from toolkit.training.distributed import knows_bfloat16

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
KNOWS_BFLOAT16 = knows_bfloat16(torch.device("cpu"))


def alternate(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Call every way once a round; each gives its own figure. Medians, the figures, and ratios to the last way."""
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(rounds):
        for name, way in ways.items():
            figures[name].append(way())
            print(f"round {round_number + 1}: {name} {figures[name][-1]:.4g}", flush=True)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    peer = list(ways)[-1]
    ratios = {
        name: [value / other for value, other in zip(values, figures[peer], strict=True)]
        for name, values in figures.items()
    }
    return {
        "figures": figures,
        "medians": medians,
        f"ratios of medians to {peer}": {name: median / medians[peer] for name, median in medians.items()},
        f"ratios to {peer}, round by round": ratios,
    }


def in_a_process(script: str, *arguments: str) -> dict[str, Any]:
    """What `script once …` prints last, as JSON, in a process of its own."""
    command = [sys.executable, script, "once", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def watched(command: list[str], **environment: str) -> tuple[float, str]:
    """Run a command: the peak of the resident memory of all its processes together, in MB, looked at ten times a
    second, and what it printed."""
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, env={**os.environ, **environment})
        root = psutil.Process(process.pid)
        while process.poll() is None:
            resident = 0
            with contextlib.suppress(psutil.Error):
                for part in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        resident += part.memory_info().rss
            peak = max(peak, resident)
            time.sleep(0.1)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        output.seek(0)
        return peak / 1e6, output.read()


def alternate_processes(script: str, ways: dict[str, list[str]], rounds: int, items_a_step: int) -> dict[str, Any]:
    """Items a second of `script once …` with the arguments of each way, in turns, from the `seconds` a step that it
    says; and medians of the peak memory of these processes."""
    memory: dict[str, list[float]] = {name: [] for name in ways}

    def items_per_second(name: str) -> float:
        found = in_a_process(script, *ways[name])
        memory[name].append(found["peak_memory_mb"])
        return items_a_step / found["seconds"]

    found = alternate({name: partial(items_per_second, name) for name in ways}, rounds)
    return found | {"peak memory, MB": {name: statistics.median(values) for name, values in memory.items()}}


def peak(dtype: torch.dtype) -> float:
    """Operations a second of a product of matrices of 1024 x 1024, the best of twenty."""
    a, b = (torch.randn(1024, 1024, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)


def peaks() -> dict[str, float]:
    """That of float32, and of bfloat16 where the processor knows it, in GFLOP/s."""
    dtypes = {"bf16": torch.bfloat16} if KNOWS_BFLOAT16 else {}
    return {name: peak(dtype) / 1e9 for name, dtype in ({"float32": torch.float32} | dtypes).items()}


def share_of_peak(way: str, flops: float, peaks: dict[str, float]) -> float:
    """Of a way that carries out so many operations a second; with bfloat16 its name ends in bf16."""
    return flops / (1e9 * peaks["bf16" if way.endswith("bf16") else "float32"])


def write(name: str, record: dict[str, Any]) -> None:
    """Print a record and leave it in docs/results, with versions and machine."""
    record |= made_with()
    write_json(RESULTS / f"{name}.json", record)
    print(json.dumps(record, indent=2))
