#!/usr/bin/env python
"""Ablate the choices of pretraining at equal time: a recipe, and the recipe with one thing changed.

    python scripts/ablation.py METHOD CORPUS VALIDATION_CORPUS RUNS_DIR [MINUTES]
    python scripts/ablation.py elmo texts/ held_out.txt runs/ablation 10

METHOD is bert or elmo. Every run pretrains the preset mini for MINUTES (10) on one core, two runs side by side, all
with the same tokenizer. Losses are on the same held-out windows, of 128 tokens or 32 words, with the same masks. The
recipe of BERT is that of bench_mlm.py, the recipe of ELMo batches of 64 and the defaults, in bfloat16 if the processor
supports it. A repeated command runs only what is missing.
Records: docs/results/ablation_METHOD.json, with the figures of docs/pretraining.md.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench_mlm import RECIPE, HeldOut
from benchmarking import HAS_BFLOAT16, read_log, write_record
from transformers import AutoModelForPreTraining

import toolkit.training.loop
from toolkit.cli.dispatch import main as toolkit_main
from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import rows_made_of
from toolkit.corpora.tokenization import load_tokenizer
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.corpora.windows import WordWindows
from toolkit.data.rows import spread
from toolkit.models.families import OUTPUT_WORDS
from toolkit.pretraining.elmo import PredictBothDirections
from toolkit.runs.results import RESULTS_FILE, read_results
from toolkit.training.distributed import make_accelerator
from toolkit.training.evaluation import held_out_loss
from toolkit.training.sampler import BatchSampler, SampleKey

BATCHES_PER_SIZE = 300
RECIPES = {"bert": RECIPE, "elmo": {"batch_size": 64, "bf16": HAS_BFLOAT16}}
CHANGES: dict[str, dict[str, dict]] = {
    "bert": {
        "the recipe": {},
        "another seed": {"seed": 1},
        "AdamW at 5e-4": {"optim": "adamw", "learning_rate": 5e-4},
        "AdamW at 1e-3": {"optim": "adamw", "learning_rate": 1e-3},
        "AdamW at 2e-3": {"optim": "adamw", "learning_rate": 2e-3},
        "Muon at 1.5e-3": {"learning_rate": 1.5e-3},
        "Muon at 6e-3": {"learning_rate": 6e-3},
        "random embeddings": {"embeddings": "random"},
        "random attention": {"attention": "random"},
        "an output bias of zeros": {"output_bias": "zeros"},
        "15% of the tokens masked": {"mlm_probability": 0.15},
        "30% of the tokens masked": {"mlm_probability_end": 0.3},
        "whole words masked": {"whole_word_mask": True},
        "whole lines, alone": {"packing": "lines"},
        "dropout of 0.1": {"dropout": 0.1},
        "windows of 64": {"max_length": 64, "batch_size": 32},
        "batches of 8": {"batch_size": 8},
        "batches of 32": {"batch_size": 32},
        "batches of 4, of 8, then of 16": {"growing": True},
        "float32": {"bf16": False},
        "compiled": {"torch_compile": True},
    },
    "elmo": {
        "the recipe": {},
        "another seed": {"seed": 1},
        "at 1.5e-3": {"learning_rate": 1.5e-3},
        "at 6e-3": {"learning_rate": 6e-3},
        "512 negatives": {"num_negatives": 512},
        "8,192 negatives": {"num_negatives": 8_192},
        "state carried over 8 windows": {"consecutive_windows": 8},
        "windows of 64": {"max_length": 64, "batch_size": 32},
        "batches of 16": {"batch_size": 16},
        "batches of 32": {"batch_size": 32},
        "batches of 128": {"batch_size": 128},
        "batches of 32 and 512 negatives": {"batch_size": 32, "num_negatives": 512},
        "float32": {"bf16": False},
    },
}


class HeldOutWords:
    """Held-out windows of words; computes the losses of ELMos on them with the full softmax."""

    def __init__(self, validation_corpus: str, tokenizer: Path):
        if not tokenizer.is_dir():
            train_tokenizer((), "bytes").save_pretrained(tokenizer)
        self.tokenizer, self.accelerator = load_tokenizer(tokenizer), make_accelerator()
        self.corpus = open_corpus(validation_corpus, "validation")

    def loss_of_folder(self, folder: Path) -> float:
        words = load_tokenizer(folder / OUTPUT_WORDS)  # the same in all runs
        rows = spread(rows_made_of(self.corpus, WordWindows(self.tokenizer, words, 32)), 2_048)
        collate = PredictBothDirections(self.tokenizer.pad_token_id, words.sep_token_id, len(words), seed=0)
        model = AutoModelForPreTraining.from_pretrained(folder).eval()
        return held_out_loss(model, rows, collate, 16, self.accelerator)


class GrowingBatches(BatchSampler):
    """`BATCHES_PER_SIZE` batches of 4 samples, as many of 8, then batches of `batch_size`. No flag does this."""

    def batch(self, step: int, progress: float = 0.0) -> list[SampleKey]:
        sizes = [4] * BATCHES_PER_SIZE + [8] * BATCHES_PER_SIZE
        start = sum(sizes[:step]) + max(0, step - len(sizes)) * self.batch_size
        size = sizes[step] if step < len(sizes) else self.batch_size
        places = [divmod(position, self.num_samples) for position in range(start, start + size)]
        return [SampleKey(step, epoch, int(self._order(epoch)[place]), progress) for epoch, place in places]


def main(method: str, corpus: str, validation_corpus: str, runs: str, minutes: float = 10.0) -> None:
    folder = Path(runs) / method
    changes = {name: change for name, change in CHANGES[method].items() if HAS_BFLOAT16 or name != "float32"}
    held_out: HeldOut | HeldOutWords
    if method == "bert":
        held_out = HeldOut(corpus, validation_corpus, folder / "tokenizer")
    else:
        held_out = HeldOutWords(validation_corpus, folder / "tokenizer")

    def folder_of(name: str) -> Path:
        return folder / name.replace(" ", "_")

    def run(name: str) -> None:
        run_folder = folder_of(name)
        if (run_folder / RESULTS_FILE).is_file():
            return
        settings = RECIPES[method] | changes[name]
        program = [__file__, "growing"] if settings.pop("growing", False) else ["-m", "toolkit"]
        command = [sys.executable, *program, "pretrain", method, "--resume", "--output_dir", str(run_folder)]
        command += ["--corpus", corpus, "--validation_corpus", validation_corpus, "--max_minutes", str(minutes)]
        command += ["--tokenizer", str(folder / "tokenizer")]
        for flag, value in settings.items():
            command += [] if value is False else [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(folder / f"{run_folder.name}.log", "w") as log:
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
        print(f"{name}: {held_out.loss_of_folder(run_folder):.3f}", flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, changes))
    found = {}
    for name in changes:
        record = read_results(folder_of(name))
        found[name] = {
            "loss": held_out.loss_of_folder(folder_of(name)),
            "steps": record["num_steps"],
            record["throughput_unit"]: record["throughput"],
            "millions read": record["throughput"] * record["training_seconds"] / 1e6,
            "last loss in training": [line["loss"] for line in read_log(folder_of(name)) if "loss" in line][-1],
        }
    loss_of_recipe = found["the recipe"]["loss"]
    losses = {name: figures["loss"] - loss_of_recipe for name, figures in found.items()}
    head = {"unit": "nats", "minutes": minutes, "recipe": RECIPES[method]}
    record = head | {"runs": found, "loss beside the recipe's": losses}
    if isinstance(held_out, HeldOut):
        record |= held_out.frequencies()
    write_record(f"ablation_{method}", record)


if __name__ == "__main__":
    if sys.argv[1:2] == ["growing"]:
        toolkit.training.loop.BatchSampler = GrowingBatches  # type: ignore[misc]
        sys.exit(toolkit_main(sys.argv[2:]))
    main(*sys.argv[1:5], *map(float, sys.argv[5:6]))
