#!/usr/bin/env python
"""What each choice in pretraining a BERT buys at equal time: the recipe, and the recipe with one thing changed.

    python scripts/ablation.py CORPUS VALIDATION_CORPUS RUNS_DIR [MINUTES]
    python scripts/ablation.py texts/ held_out.txt runs/ablation 10

Every run pretrains a bert-mini for MINUTES (10) on one core, two runs side by side, with one tokenizer. Their losses
are of the same held-out windows and masks. Started again, it makes the runs that are missing. The recipe is that of
scripts/figures.sh. Record: docs/results/ablation.json, from which the table of docs/pretraining.md is made.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alternation import write
from bench_mlm import OURS, HeldOut

from toolkit.results import RESULTS_FILE, read_results

CHANGES = {
    "the recipe": {},
    "AdamW at 5e-4": {"optim": "adamw", "learning_rate": 5e-4},
    "AdamW at 1e-3": {"optim": "adamw", "learning_rate": 1e-3},
    "AdamW at 2e-3": {"optim": "adamw", "learning_rate": 2e-3},
    "Muon at 1.5e-3": {"learning_rate": 1.5e-3},
    "Muon at 6e-3": {"learning_rate": 6e-3},
    "random embeddings": {"embeddings": "random"},
    "an output bias of zeros": {"output_bias": "zeros"},
    "15% of the tokens masked": {"mlm_probability": 0.15},
    "30% of the tokens masked": {"mlm_probability_end": 0.3},
    "whole words masked": {"whole_word_mask": True},
    "whole lines, alone": {"packing": "lines"},
    "dropout of 0.1": {"dropout": 0.1},
    "windows of 64": {"max_length": 64, "batch_size": 32},
    "batches of 8": {"batch_size": 8},
    "batches of 32": {"batch_size": 32},
    "float32": {"bf16": False},
}


def main(corpus: str, validation_corpus: str, runs: str, minutes: float = 10.0) -> None:
    folder = Path(runs)
    held_out = HeldOut(corpus, validation_corpus, folder / "tokenizer")

    def run(name: str) -> None:
        place = folder / name.replace(" ", "_")
        if (place / RESULTS_FILE).is_file():
            return
        command = [sys.executable, "-m", "toolkit", "pretrain", "bert", "--resume", "--output_dir", str(place)]
        command += ["--corpus", corpus, "--validation_corpus", validation_corpus, "--max_minutes", str(minutes)]
        command += ["--tokenizer", str(folder / "tokenizer")]
        for flag, value in (OURS | CHANGES[name]).items():
            command += [] if value is False else [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(folder / f"{place.name}.log", "w") as log:
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
        print(f"{name}: {held_out.loss_of_folder(place):.3f}", flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, CHANGES))
    found = {}
    for name in CHANGES:
        place = folder / name.replace(" ", "_")
        record = read_results(place)
        log = [json.loads(line) for line in (place / "train_log.jsonl").read_text().splitlines()]
        found[name] = {
            "loss": held_out.loss_of_folder(place),
            "steps": record["num_steps"],
            "tokens/s": record["throughput"],
            "tokens": record["throughput"] * record["training_seconds"],
            "last loss in training": [line["loss"] for line in log if "loss" in line][-1],
        }
    of_recipe = found["the recipe"]["loss"]
    losses = {name: figures["loss"] - of_recipe for name, figures in found.items()}
    head = {"unit": "nats", "minutes": minutes, "recipe": OURS}
    write("ablation", head | {"runs": found, "loss beside the recipe's": losses} | held_out.frequencies())


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(float, sys.argv[4:5]))
