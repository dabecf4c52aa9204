"""What the benchmarks share: ways of doing the same, run in turns on the same machine, as medians and ratios."""

import json
import statistics
from collections.abc import Callable
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


def write(name: str, record: dict[str, Any]) -> None:
    """Print a record and leave it in docs/results, with versions and machine."""
    record |= made_with()
    write_json(RESULTS / f"{name}.json", record)
    print(json.dumps(record, indent=2))
