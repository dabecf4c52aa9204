#!/usr/bin/env python
"""Measure the speed of training beside other work on the same machine, with and without the toolkit's spin limits.

    python scripts/bench_neighbour.py [--rounds 5] [--seconds 10] [--encoder bert elmo resnet probe]
        [--neighbour nothing steady steady-apart short-apart] [--setting NAME=VALUE …] [--setting …]
    python scripts/bench_neighbour.py --setting GOMP_SPINCOUNT=10000 --setting OMP_WAIT_POLICY=passive
    python scripts/bench_neighbour.py --quickstart [--rounds 1]

"before" is the default of OpenMP and OpenBLAS, "after" the limits that `toolkit.runs.threads` sets, and every
--setting is one more alternative, with these variables instead of the limits. The alternatives take turns, each in a
process of its own that trains for some seconds with as many threads as PyTorch chooses: a bert-tiny on windows of 128
tokens, batch 32; an elmo-mini on windows of 32 words, batch 64; a resnet-mini on images of 32 pixels, batch 32; a
linear probe on 2,000 feature vectors. The figures are training steps, or fits of the probe, per second.

The other work has one thread and runs with `nice -n 10`: `steady` is a process that computes without end in the same
login session, `steady-apart` one in another session, and `short-apart` a loop of processes in another session that
import numpy and compute for a second each. Linux divides the processors between sessions first if
/proc/sys/kernel/sched_autogroup_enabled is 1, and `nice` acts only within a session. The targets are the lowest good
median of the ratios of a round to "before". Record: docs/results/bench_neighbour.json.

--quickstart measures the seconds of README's `toolkit quickstart` alone and beside `short-apart` instead, with the
limits and with every --setting. Record: docs/results/bench_neighbour_quickstart.json.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from bench_elmo import NUM_NEGATIVES, Job
from benchmarking import BertOnSample, alternate, read_log, run_in_process, write_record

from toolkit.corpora.corpus import open_corpus
from toolkit.models.elmo import ElmoForPreTraining
from toolkit.models.families import presets
from toolkit.models.resnet import SmallImageResNetForImageClassification
from toolkit.runs.tables import as_text
from toolkit.runs.threads import SPIN_LIMITS, WAIT_POLICY
from toolkit.training.arguments import TrainingArguments
from toolkit.training.inputs import TrainingData, TrainingOutput
from toolkit.training.loop import train
from toolkit.transfer.linear_probe import fit_linear_probe

LIBRARY_DEFAULTS = {  # see `toolkit.runs.threads`
    "GOMP_SPINCOUNT": "300000",
    "KMP_BLOCKTIME": "200",
    "OPENBLAS_THREAD_TIMEOUT": "28",
}
STEADY = "while True: pass"
SHORT = """
import time, numpy
matrix = numpy.ones((300, 300))
while time.process_time() < 1:
    matrix @ matrix
"""
IN_SESSION, IN_OTHER_SESSION = os.setpgrp, os.setsid  # both start a process group
NEIGHBOURS: dict[str, tuple[list[str], Callable[[], Any]] | None] = {
    "nothing": None,
    "steady": ([sys.executable, "-c", STEADY], IN_SESSION),
    "steady-apart": ([sys.executable, "-c", STEADY], IN_OTHER_SESSION),
    "short-apart": (["sh", "-c", 'while :; do "$0" -c "$1"; done', sys.executable, SHORT], IN_OTHER_SESSION),
}
TARGETS = {"nothing": 0.97, "steady": 0.85, "steady-apart": 0.85, "short-apart": 2.5}
QUICKSTART_TARGET = 2.5  # times as long as alone, at most


@contextmanager
def beside(neighbour: str) -> Iterator[None]:
    """Run the other work until the block ends, also by Ctrl-C or SIGTERM, and then kill all its processes."""
    if (found := NEIGHBOURS[neighbour]) is None:
        yield
        return
    command, start_group = found
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(["nice", "-n", "10", *command], env=environment, preexec_fn=start_group)
    try:
        yield
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(children, timeout=10)  # they still run for a moment after the signal


def environment_with(setting: dict[str, str]) -> dict[str, str]:
    """This environment with no other variables of waiting than those of the setting."""
    others = {name: value for name, value in os.environ.items() if name not in (WAIT_POLICY, *SPIN_LIMITS)}
    return others | setting


# Steps per second


def bert() -> tuple[Any, TrainingData, int]:
    """A model, its data and the batch size."""
    sample = BertOnSample("bert-tiny", 128)
    return sample.new_model(), TrainingData(sample.rows, sample.collate), 32


def elmo() -> tuple[Any, TrainingData, int]:
    job = Job(*open_corpus("sample").hold_out(0.01), steps=0)
    return ElmoForPreTraining(job.config), TrainingData(job.rows, job.collate(NUM_NEGATIVES)), 64


def resnet() -> tuple[Any, TrainingData, int]:
    num_labels, num_images = 10, 1_000
    config = presets()["resnet-mini"].config(32)
    config.num_labels = num_labels
    images, labels = torch.rand(num_images, 3, 32, 32), torch.randint(num_labels, (num_images,))

    def collate(rows: list[int], keys: list[Any]) -> dict[str, Any]:
        return {"pixel_values": images[rows], "labels": labels[rows], "num_targets": len(rows), "num_items": len(rows)}

    return SmallImageResNetForImageClassification(config), TrainingData(list(range(num_images)), collate), 32


def train_encoder(make: Callable[[], tuple[Any, TrainingData, int]], seconds: float) -> float:
    """Training steps per second."""
    model, data, batch_size = make()
    arguments = TrainingArguments(max_minutes=seconds / 60, batch_size=batch_size, logging_steps=1)
    with tempfile.TemporaryDirectory() as folder:
        train(model, data, arguments, TrainingOutput(Path(folder)))
        times = [line["seconds"] for line in read_log(Path(folder))]
    return len(times) / times[-1]


def fit_probes(seconds: float) -> float:
    """Fits per second of a linear probe, which computes in OpenBLAS."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(2_000, 256)), rng.integers(20, size=2_000)
    num_fits, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        fit_linear_probe(features, labels)
        num_fits += 1
    return num_fits / (time.perf_counter() - start)


MEASURED = {name: partial(train_encoder, make) for name, make in (("bert", bert), ("elmo", elmo), ("resnet", resnet))}
MEASURED["probe"] = fit_probes


def measure_steps(
    encoders: list[str], neighbours: list[str], settings: dict[str, dict[str, str]], rounds: int, seconds: float
) -> None:
    def steps_per_second(encoder: str, setting: dict[str, str]) -> float:
        environment = environment_with(setting)
        return run_in_process(__file__, encoder, str(seconds), environment=environment)["steps/s"]

    record: dict[str, Any] = {
        "unit": "steps/s, of the probe fits/s",
        "seconds": seconds,
        "settings": settings,
        "targets": TARGETS,
    }
    lines = [("encoder", "beside", "setting", "before", "steps/s", "median ratio", "range", "target", "")]
    for encoder in encoders:
        for neighbour in neighbours:
            print(f"{encoder} beside {neighbour}", flush=True)
            alternatives = {name: partial(steps_per_second, encoder, setting) for name, setting in settings.items()}
            with beside(neighbour):
                found = alternate(alternatives, rounds)
            record[f"{encoder} beside {neighbour}"] = found
            ratios, medians = found["ratios to before, round by round"], found["medians"]
            found["medians of ratios to before"] = {name: statistics.median(ratios[name]) for name in settings}
            for name in list(settings)[:-1]:
                ratio, low, high = statistics.median(ratios[name]), min(ratios[name]), max(ratios[name])
                figures = [f"{value:.2f}" for value in (medians["before"], medians[name], ratio)]
                met = "met" if ratio >= TARGETS[neighbour] else "missed"
                target = f"{TARGETS[neighbour]}", met
                lines.append((encoder, neighbour, name, *figures, f"{low:.2f} to {high:.2f}", *target))
    write_record("bench_neighbour", record)
    print(as_text(lines))


# The quickstart


def quickstart_seconds(neighbour: str, setting: dict[str, str], budget: float) -> float:
    command = [sys.executable, "-m", "toolkit", "quickstart", "--budget", str(budget), "--output_dir"]
    with tempfile.TemporaryDirectory() as folder, beside(neighbour):
        environment = environment_with(setting) | {"HF_DATASETS_CACHE": f"{folder}/cache"}
        start = time.perf_counter()
        subprocess.run([*command, f"{folder}/quickstart"], env=environment, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


def measure_quickstart(settings: dict[str, dict[str, str]], rounds: int, budget: float) -> None:
    record: dict[str, Any] = {"unit": "s", "budget": budget, "settings": settings, "target": QUICKSTART_TARGET}
    lines = [("setting", "alone, s", "beside, s", "median ratio", "range", "target", "")]
    for name, setting in settings.items():
        print(name, flush=True)
        neighbours = {"beside": "short-apart", "alone": "nothing"}
        alternatives = {
            label: partial(quickstart_seconds, neighbour, setting, budget) for label, neighbour in neighbours.items()
        }
        record[name] = found = alternate(alternatives, rounds)
        ratios = found["ratios to alone, round by round"]["beside"]
        ratio, medians = statistics.median(ratios), found["medians"]
        figures = f"{medians['alone']:.0f}", f"{medians['beside']:.0f}", f"{ratio:.2f}"
        met = "met" if ratio <= QUICKSTART_TARGET else "missed"
        lines.append((name, *figures, f"{min(ratios):.2f} to {max(ratios):.2f}", f"{QUICKSTART_TARGET}", met))
    write_record("bench_neighbour_quickstart", record)
    print(as_text(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="Runs of each alternative (default 5; 1 of the quickstart).")
    parser.add_argument("--seconds", type=float, default=10, help="Seconds of training in each run.")
    parser.add_argument("--encoder", nargs="+", choices=MEASURED, default=list(MEASURED), help="What to train.")
    parser.add_argument("--neighbour", nargs="+", choices=NEIGHBOURS, default=list(NEIGHBOURS), help="The other work.")
    parser.add_argument("--setting", nargs="+", action="append", default=[], metavar="NAME=VALUE", help="Variables.")
    parser.add_argument("--quickstart", action="store_true", help="Measure the seconds of the quickstart instead.")
    parser.add_argument("--budget", type=float, default=1.0, help="Fraction of the steps of the quickstart.")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `beside` cleans up
    settings = {"after": SPIN_LIMITS}
    settings |= {" ".join(pairs): dict(pair.split("=", 1) for pair in pairs) for pairs in arguments.setting}
    if arguments.quickstart:
        measure_quickstart(settings, arguments.rounds or 1, arguments.budget)
    else:
        settings["before"] = LIBRARY_DEFAULTS
        rounds = arguments.rounds or 5
        measure_steps(arguments.encoder, arguments.neighbour, settings, rounds, arguments.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        print(json.dumps({"steps/s": MEASURED[sys.argv[2]](float(sys.argv[3]))}))
    else:
        main()
