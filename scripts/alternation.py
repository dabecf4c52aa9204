"""What the benchmarks share: ways of doing the same, run in turns on the same machine, as medians and ratios."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.results import made_with, write_json

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"


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


def write(name: str, record: dict[str, Any]) -> None:
    """Print a record and leave it in docs/results, with versions and machine."""
    record |= made_with()
    write_json(RESULTS / f"{name}.json", record)
    print(json.dumps(record, indent=2))
