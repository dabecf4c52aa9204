#!/usr/bin/env python
"""Measure what docs/scaling.md shows: efficiency of two processes, bytes sent per step, and speed of data loading.

    python scripts/bench_scaling.py [ROUNDS]

Efficiency is the tokens or words per second of `torchrun --nproc_per_node 2 -m toolkit pretrain …` relative to one
process, with one thread per process: once with twice the batch, so that each process has as much work as before, and
once with the same batch. Two independent processes show what the second core of the machine is worth. The figures for
8, 64 and 512 GPUs are estimates from these measurements and the public figures in `ASSUMED`.
Record: docs/results/bench_scaling.json.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from benchmarking import alternate, masking_collator, read_log, write_record

STEPS, BATCH_SIZE = 30, {"bert-mini": 8, "elmo-mini": 32}
SIZES = ("tiny", "mini", "small", "base")
ASSUMED = {
    "FLOP/s of a GPU": 989e12,  # NVIDIA H100 SXM, dense bfloat16, data sheet
    "share of them reached": 0.3,
    "tokens a GPU and step": 32_768,
    "loader workers a GPU": 8,
    "bytes/s to the next GPU": {8: 450e9, 64: 50e9, 512: 50e9},  # NVLink 4, one direction; InfiniBand NDR, 400 Gbit/s
    "seconds a hop": 10e-6,
    "blocking exchanges a step": 2,  # number of targets; elapsed time and signals
    "corpus in bytes": 1e12,
    "cores that tokenize": 64,
}


def start_pretraining(preset: str, folder: Path, num_processes: int, batch_size: int) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if num_processes > 1 else []
    command = [sys.executable, *launcher, "-m", "toolkit", "pretrain", preset.partition("-")[0], "--corpus", "sample"]
    command += ["--preset", preset, "--output_dir", str(folder), "--max_steps", str(STEPS), "--eval_steps", str(STEPS)]
    command += ["--batch_size", str(batch_size), "--logging_steps", "10"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def throughput(run: subprocess.Popen, folder: Path) -> float:
    """The median of the items per second in the log, without its first line. Start and evaluation do not count."""
    _, messages = run.communicate()
    assert run.returncode == 0, messages
    rates = [value for line in read_log(folder) for name, value in line.items() if name.endswith("s_per_second")]
    return float(np.median(rates[1:]))


def run_once(preset: str, num_processes: int, batch_size: int) -> float:
    with tempfile.TemporaryDirectory() as root:
        return throughput(start_pretraining(preset, Path(root) / "run", num_processes, batch_size), Path(root) / "run")


def run_two_independently(preset: str, batch_size: int) -> float:
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / name for name in ("a", "b")]
        runs = [start_pretraining(preset, folder, 1, batch_size) for folder in folders]
        return sum(throughput(run, folder) for run, folder in zip(runs, folders, strict=True))


def efficiency(preset: str, rounds: int) -> dict:
    batch_size = BATCH_SIZE[preset]
    return alternate(
        {
            "two processes, twice the batch": lambda: run_once(preset, 2, 2 * batch_size),
            "two processes, the same batch": lambda: run_once(preset, 2, batch_size),
            "two runs apart": lambda: run_two_independently(preset, batch_size),
            "one process": lambda: run_once(preset, 1, batch_size),
        },
        rounds,
    )


def bytes_sent() -> dict[str, dict[str, int]]:
    """Parameters and gradient bytes of each preset. An all-reduce sends 2 (N - 1) / N times the gradient bytes."""
    import torch

    from toolkit.models.bert import BertForMaskedLM
    from toolkit.models.elmo import ElmoForPreTraining
    from toolkit.models.families import presets

    sizes = {}
    for family, model_class in (("elmo", ElmoForPreTraining), ("bert", BertForMaskedLM)):
        for size in SIZES:
            preset = presets()[f"{family}-{size}"]
            with torch.device("meta"):
                parameters = sum(p.numel() for p in model_class(preset.config(preset.default_size)).parameters())
            sizes[f"{family}-{size}"] = {"parameters": parameters, "gradient_bytes": 4 * parameters}
    return sizes


def data_loading() -> dict[str, float]:
    """What is prepared per second, tokenizing on all cores and masking on one, and the cost of shuffling."""
    from toolkit.corpora.corpus import open_corpus
    from toolkit.corpora.prepared import open_prepared, prepare
    from toolkit.corpora.tokenizer_training import train_tokenizer
    from toolkit.corpora.windows import PieceWindows
    from toolkit.corpora.workers import available_cores
    from toolkit.training.sampler import BatchSampler, SampleKey

    corpus = open_corpus("sample").divided(available_cores())
    num_bytes = sum(len(text.encode()) for text in corpus.texts())
    tokenizer = train_tokenizer(corpus.texts(), "wordpiece", 8192)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = open_prepared(prepare(corpus, PieceWindows(tokenizer, 128), Path(folder)))
        tokenizing = time.perf_counter() - start
        ids, num_tokens = rows["input_ids"][:1000], sum(map(len, rows["input_ids"]))
    collate = masking_collator(tokenizer)
    batch = [{"input_ids": row} for row in ids]
    start = time.perf_counter()
    num_rounds = 5
    for step in range(num_rounds):
        collate(batch, [SampleKey(step, step, i) for i in range(len(batch))])
    masking = time.perf_counter() - start
    start = time.perf_counter()
    BatchSampler(100_000_000, 32, seed=0).batch(0)
    return {
        "bytes tokenized a second": num_bytes / tokenizing,
        "tokens": num_tokens,
        "bytes a token": num_bytes / num_tokens,
        "tokens masked a second": num_rounds * sum(map(len, ids)) / masking,
        "seconds to shuffle 100,000,000 examples": time.perf_counter() - start,
        "bytes of an order, an example": 8.0,
    }


def estimate(presets: dict[str, dict[str, int]], feeding: dict[str, float]) -> dict[str, dict]:
    """Milliseconds of each part of a step, efficiency and hours for the corpus, by preset and number of GPUs."""
    tokens = ASSUMED["tokens a GPU and step"]
    corpus_tokens = ASSUMED["corpus in bytes"] / feeding["bytes a token"]
    found: dict[str, dict] = {}
    for preset in ("bert-mini", "bert-small", "bert-base"):
        size = presets[preset]
        compute = 6 * size["parameters"] * tokens / (ASSUMED["FLOP/s of a GPU"] * ASSUMED["share of them reached"])
        feed = tokens / (feeding["tokens masked a second"] * ASSUMED["loader workers a GPU"])
        for num_gpus, bandwidth in ASSUMED["bytes/s to the next GPU"].items():
            send = 2 * (num_gpus - 1) / num_gpus * size["gradient_bytes"] / bandwidth
            wait = ASSUMED["blocking exchanges a step"] * 2 * np.log2(num_gpus) * ASSUMED["seconds a hop"]
            step = max(compute, feed) + max(0.0, send - compute * 2 / 3) + wait  # sent while the backward pass runs
            parts = {"computing": compute, "feeding": feed, "sending": send, "waiting": wait}
            found[f"{preset}, {num_gpus} GPUs"] = {
                **{f"milliseconds {name}": 1000 * seconds for name, seconds in parts.items()},
                "milliseconds a step": 1000 * step,
                "efficiency": compute / step,
                "hours for the corpus": corpus_tokens / (num_gpus * tokens) * step / 3600,
                "limit": max(parts, key=lambda name: parts[name]),
            }
    found["preparing the corpus"] = {
        "tokens": corpus_tokens,
        "hours to tokenize": ASSUMED["corpus in bytes"]
        / (feeding["bytes tokenized a second"] * ASSUMED["cores that tokenize"] / os.cpu_count() * 3600),
        "GB of the order of the data, a process": corpus_tokens / 128 * feeding["bytes of an order, an example"] / 1e9,
        "hours to shuffle an epoch": corpus_tokens
        / 128
        / 1e8
        * feeding["seconds to shuffle 100,000,000 examples"]
        / 3600,
    }
    return found


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    record = {"presets": bytes_sent(), "feeding": data_loading(), "assumed": ASSUMED}
    for preset in BATCH_SIZE:
        record[preset] = efficiency(preset, rounds)
    record["estimates"] = estimate(record["presets"], record["feeding"])
    write_record("bench_scaling", record)
