"""Shared by the benchmarks: run alternatives in turns on one machine, compare medians, measure the peak speed."""

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

from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import rows_made_of
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.corpora.windows import PieceWindows
from toolkit.models.bert import BertForMaskedLM
from toolkit.models.families import presets
from toolkit.pretraining.bert import MaskTokens
from toolkit.runs.output import write_json
from toolkit.runs.results import LOG_FILE, made_with
from toolkit.training.distributed import knows_bfloat16

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
HAS_BFLOAT16 = knows_bfloat16(torch.device("cpu"))


def alternate(alternatives: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Call every alternative once per round, so that other work on the machine affects all of them alike.

    Every second round runs in the opposite order, so that a machine that slows down or speeds up favours none of them.

    Args:
        alternatives: Functions by name, each returning its figure. The others are compared with the last one.
        rounds: Number of rounds.

    Returns:
        The figures, their medians, and ratios to the last alternative.
    """
    figures: dict[str, list[float]] = {name: [] for name in alternatives}
    for round_number in range(rounds):
        for name in list(alternatives)[:: -1 if round_number % 2 else 1]:
            figures[name].append(alternatives[name]())
            print(f"round {round_number + 1}: {name} {figures[name][-1]:.4g}", flush=True)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    peer = list(alternatives)[-1]
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


def run_in_process(script: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `script once …` in a new process and parse the last line that it prints as JSON.

    Args:
        script: The benchmark.
        arguments: The words after `once`.
        environment: All variables of its environment (default: those of this process).
    """
    command = [sys.executable, script, "once", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_with_peak_memory(command: list[str], **environment: str) -> tuple[float, str]:
    """Run a command and sample the resident memory of all its processes ten times a second.

    Returns:
        The peak in MB and what the command printed.
    """
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


def alternate_processes(
    script: str, alternatives: dict[str, list[str]], rounds: int, items_per_step: int
) -> dict[str, Any]:
    """Like `alternate`, for `script once …`, which prints `seconds` per step and `peak_memory_mb`.

    Args:
        script: The benchmark.
        alternatives: Arguments of each alternative, by name.
        rounds: Number of rounds.
        items_per_step: Number of items per step.

    Returns:
        Items per second as from `alternate`, and medians of the peak memory.
    """
    memory: dict[str, list[float]] = {name: [] for name in alternatives}

    def items_per_second(name: str) -> float:
        found = run_in_process(script, *alternatives[name])
        memory[name].append(found["peak_memory_mb"])
        return items_per_step / found["seconds"]

    found = alternate({name: partial(items_per_second, name) for name in alternatives}, rounds)
    return found | {"peak memory, MB": {name: statistics.median(values) for name, values in memory.items()}}


def peak_flops(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of two 1024 x 1024 matrices, the best of twenty."""
    a, b = (torch.randn(1024, 1024, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)


def peaks_in_gflops() -> dict[str, float]:
    """The peak in GFLOP/s for float32, and for bfloat16 if the processor supports it."""
    dtypes = {"bf16": torch.bfloat16} if HAS_BFLOAT16 else {}
    return {name: peak_flops(dtype) / 1e9 for name, dtype in ({"float32": torch.float32} | dtypes).items()}


def fraction_of_peak(alternative: str, flops: float, peaks: dict[str, float]) -> float:
    """The fraction of the peak that `flops` per second reach. Names of bfloat16 alternatives end in bf16."""
    return flops / (1e9 * peaks["bf16" if alternative.endswith("bf16") else "float32"])


class BertOnSample:
    """What the benchmarks of the loop train: a BERT preset on windows of the sample text.

    Args:
        preset: Name of the preset.
        length: Tokens per window.
    """

    def __init__(self, preset: str, length: int):
        self.preset = presets()[preset]
        corpus = open_corpus("sample")
        self.tokenizer = train_tokenizer(corpus.texts(), "wordpiece", self.preset.default_size)
        self.rows = rows_made_of(corpus, PieceWindows(self.tokenizer, length))
        self.collate = masking_collator(self.tokenizer)

    def new_model(self) -> BertForMaskedLM:
        torch.manual_seed(0)
        return BertForMaskedLM(self.preset.config(len(self.tokenizer)))


def masking_collator(tokenizer) -> MaskTokens:
    special_ids = tokenizer.all_special_ids
    return MaskTokens(tokenizer.pad_token_id, tokenizer.mask_token_id, special_ids, len(tokenizer), seed=0)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of `train_log.jsonl`."""
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


def data_set(name: str) -> str:
    """The folder of a data set in `TOOLKIT_DATA`."""
    return os.path.join(os.environ.get("TOOLKIT_DATA", "../shared/data"), name)


def skip_without(folder: str) -> None:
    """Exit without an error if the script was called without arguments and the folder of its data set is missing."""
    if len(sys.argv) == 1 and not Path(folder).is_dir():
        print(f"skipped: no {folder}; set TOOLKIT_DATA to the folder of the data sets")
        sys.exit()


def write_record(name: str, record: dict[str, Any]) -> None:
    """Print a record and save it in docs/results, with versions and machine."""
    record |= made_with()
    write_json(RESULTS / f"{name}.json", record)
    print(json.dumps(record, indent=2))
