#!/usr/bin/env python
"""Compare pretraining of a BERT with `transformers.Trainer` and the recipe of transformers' run_mlm example.

    python scripts/bench_mlm.py speed [ROUNDS]
    python scripts/bench_mlm.py race CORPUS VALIDATION_CORPUS RUNS_DIR [MINUTES]

A BERT of 4 layers with hidden size 256 and 4 heads, windows of 128 tokens, batch 32; both train on the same windows.
The recipe of the example: dynamic masking of 15% of the tokens, dropout 0.1, AdamW, linear decay of the learning rate,
float32. Runs in bfloat16 are left out on processors without bfloat16.

speed: tokens per second of processes that take turns and make a few steps each, on random tokens with vocabularies of
8,192 and 30,522, with and without bfloat16; and the fraction of the machine's matrix-multiply peak (1024 x 1024,
measured in the same run): the multiplications of the steps (`flops`) by their time. Record:
docs/results/bench_mlm.json.

race: the peer trains for MINUTES (30) at each of three learning rates, then the toolkit with the recipe `RECIPE` and
the same tokenizer. Losses are on the same held-out windows and masks, with the cross-entropy of a guess by frequency
for comparison. A repeated command continues with the run that is missing. Record: docs/results/bench_mlm_race.json.
"""

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from benchmarking import (
    HAS_BFLOAT16,
    alternate_processes,
    fraction_of_peak,
    masking_collator,
    peaks_in_gflops,
    read_log,
    write_record,
)
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback
from transformers import TrainingArguments as TrainerArguments

from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import rows_made_of
from toolkit.corpora.tokenization import bert_normalizer, load_tokenizer, word_level_tokenizer
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.corpora.windows import PieceWindows
from toolkit.data.rows import spread
from toolkit.models.bert import BertForMaskedLM
from toolkit.models.families import presets
from toolkit.pretraining import pretrain
from toolkit.pretraining.bert import EVAL_MASKED_SHARE, count_tokens
from toolkit.runs.output import write_json
from toolkit.runs.results import Stopwatch
from toolkit.training.arguments import TrainingArguments
from toolkit.training.distributed import make_accelerator
from toolkit.training.evaluation import held_out_loss
from toolkit.training.inputs import TrainingData, TrainingOutput
from toolkit.training.loop import train

LAYERS, WIDTH, LENGTH, BATCH_SIZE, STEPS = 4, 256, 128, 32, 10
NUM_SPECIAL_TOKENS = 5
PEER_RATES = (5e-4, 1e-3, 2e-3)
RECIPE = {  # of the record; AdamW has become the default since, see docs/pretraining.md
    "batch_size": 16,
    "optim": "muon",
    "learning_rate": 3e-3,
    "embeddings": "word2vec",
    "output_bias": "frequencies",
    "attention": "neighbours",
    "mlm_probability": 0.3,
    "mlm_probability_end": 0.15,
    "bf16": HAS_BFLOAT16,
}


def flops(vocab_size: int, masked_only: bool) -> float:
    """Floating-point operations of the matrix products of one step; the backward pass counts twice the forward pass.

    Per token these are two operations for each weight, and for each attention score and weighted sum. With
    `masked_only`, the queries, output and feed-forward of the last layer are computed at masked positions only.
    """
    masked = EVAL_MASKED_SHARE if masked_only else 1.0
    matrix, attention = 2 * WIDTH * WIDTH, 2 * 2 * LENGTH * WIDTH
    layer = 12 * matrix + attention  # queries, keys, values, output; feed-forward of four times the width
    last_layer = 2 * matrix + masked * (10 * matrix + attention)
    output = masked * (matrix + 2 * WIDTH * vocab_size)
    return 3 * BATCH_SIZE * LENGTH * ((LAYERS - 1) * layer + last_layer + output)


def new_model(vocab_size: int) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(presets()["bert-mini"].config(vocab_size))


class Clock(TrainerCallback):
    def __init__(self):
        self.times: list[float] = []

    def on_step_end(self, *arguments, **keywords):
        self.times.append(time.perf_counter())


def peer_trainer(rows, tokenizer, folder: Path, learning_rate: float, callbacks=(), **limits: Any) -> Trainer:
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(presets()["bert-mini"].config(len(tokenizer)))
    arguments = TrainerArguments(
        str(folder),
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=learning_rate,
        save_strategy="no",
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **limits,
    )
    collator = DataCollatorForLanguageModeling(tokenizer)
    return Trainer(model, arguments, train_dataset=rows, data_collator=collator, callbacks=list(callbacks))


# speed


def once(alternative: str, vocab_size: int) -> dict[str, float]:
    """Seconds per step after two warm-up steps, and peak memory. Runs in its own process."""
    bf16 = alternative.endswith("bf16")
    rng = np.random.default_rng(0)
    rows = Dataset.from_dict(
        {"input_ids": rng.integers(NUM_SPECIAL_TOKENS, vocab_size, (BATCH_SIZE * STEPS, LENGTH)).tolist()}
    )
    words = [f"w{i}" for i in range(vocab_size - NUM_SPECIAL_TOKENS)]
    tokenizer = word_level_tokenizer(words, bert_normalizer())
    with tempfile.TemporaryDirectory() as folder:
        if alternative.startswith("Trainer"):
            clock = Clock()
            peer_trainer(rows, tokenizer, Path(folder), 5e-4, [clock], max_steps=STEPS, bf16=bf16).train()
            times = clock.times
        else:
            arguments = TrainingArguments(max_steps=STEPS, batch_size=BATCH_SIZE, logging_steps=1, bf16=bf16)
            model = new_model(vocab_size)
            model.set_dropout(0.0)  # the toolkit's default
            data = TrainingData(rows, masking_collator(tokenizer))
            train(model, data, arguments, TrainingOutput(Path(folder)))
            times = [line["seconds"] for line in read_log(Path(folder))]
    return {"seconds": (times[-1] - times[1]) / (STEPS - 2), "peak_memory_mb": Stopwatch().peak_memory_mb}


def speed(rounds: int = 3) -> None:
    peaks = peaks_in_gflops()
    record: dict[str, Any] = {"unit": "tokens/s", "steps": STEPS - 2, "peak, GFLOP/s": peaks}
    suffixes = (", bf16", "") if HAS_BFLOAT16 else ("",)
    names = [f"{name}{suffix}" for suffix in suffixes for name in ("toolkit", "Trainer")]
    for vocab_size in (8_192, 30_522):
        alternatives = {name: [name, str(vocab_size)] for name in names}
        found = alternate_processes(__file__, alternatives, rounds, BATCH_SIZE * LENGTH)
        found["share of the peak"] = {}
        for name, tokens_per_second in found["medians"].items():
            flops_per_token = flops(vocab_size, masked_only=name.startswith("toolkit")) / (BATCH_SIZE * LENGTH)
            found["share of the peak"][name] = fraction_of_peak(name, flops_per_token * tokens_per_second, peaks)
        record[f"vocabulary of {vocab_size:,}"] = found
    write_record("bench_mlm", record)


# race


class Deadline(TrainerCallback):
    """Decays the learning rate linearly over minutes instead of steps, and then ends the training."""

    def __init__(self, minutes: float, learning_rate: float):
        self.seconds, self.learning_rate, self.start = 60 * minutes, learning_rate, time.perf_counter()

    def progress(self) -> float:
        return (time.perf_counter() - self.start) / self.seconds

    def on_train_begin(self, *arguments, **keywords):
        self.start = time.perf_counter()

    def on_step_begin(self, args, state, control, optimizer=None, **keywords):
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * max(0.0, 1 - self.progress())

    def on_step_end(self, args, state, control, **keywords):
        control.should_training_stop = self.progress() >= 1


class HeldOut:
    """Training and held-out windows of one tokenizer, which is trained on the corpus; computes held-out losses."""

    def __init__(self, corpus: str, validation_corpus: str, tokenizer: Path):
        if not tokenizer.is_dir():
            texts = open_corpus(corpus).texts()
            train_tokenizer(texts, "wordpiece", 8_192, do_lower_case=True).save_pretrained(tokenizer)
        self.tokenizer = load_tokenizer(tokenizer)
        self.train_rows, held_out = (
            rows_made_of(texts, PieceWindows(self.tokenizer, LENGTH))
            for texts in (open_corpus(corpus), open_corpus(validation_corpus, "validation"))
        )
        self.rows = spread(held_out, 2_048)
        self.collate, self.accelerator = masking_collator(self.tokenizer), make_accelerator()

    def loss(self, model) -> float:
        return held_out_loss(model.eval(), self.rows, self.collate, 16, self.accelerator)

    def loss_of_folder(self, folder: Path) -> float:
        return self.loss(BertForMaskedLM.from_pretrained(folder))

    def frequencies(self) -> dict[str, float]:
        """The cross-entropy of predicting by token frequency, in nats."""
        counts, held_out = (count_tokens(rows, len(self.tokenizer)) + 0.0 for rows in (self.train_rows, self.rows))
        counts += 1
        for each in (counts, held_out):
            each[self.tokenizer.all_special_ids] = 0  # never a target
        shares = counts / counts.sum()
        seen = held_out > 0
        return {"cross-entropy of frequencies": float(-(held_out[seen] * np.log(shares[seen])).sum() / held_out.sum())}


def race(corpus: str, validation_corpus: str, runs: str, minutes: float = 30.0) -> None:
    folder = Path(runs)
    held_out = HeldOut(corpus, validation_corpus, folder / "tokenizer")
    peers = {}
    for rate in PEER_RATES:
        peer_folder = folder / f"peer-{rate:g}"
        if not (peer_folder / "record.json").is_file():
            callbacks = [Deadline(minutes, rate)]
            limits = {"max_steps": 10**7, "lr_scheduler_type": "constant"}
            trainer = peer_trainer(held_out.train_rows, held_out.tokenizer, peer_folder, rate, callbacks, **limits)
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
            model = new_model(len(held_out.tokenizer))
            model.load_state_dict(trainer.model.state_dict())
            record = {"loss": held_out.loss(model), "steps": trainer.state.global_step, "seconds": seconds}
            write_json(peer_folder / "record.json", record)
        peers[f"{rate:g}"] = json.loads((peer_folder / "record.json").read_text())
        print(f"Trainer, {rate:g}: {peers[f'{rate:g}']}", flush=True)
    flags = {"corpus": corpus, "validation_corpus": validation_corpus, "tokenizer": str(folder / "tokenizer")}
    flags |= {"output_dir": str(folder / "toolkit"), "max_minutes": minutes, "resume": True}
    result = pretrain("bert", **flags, **RECIPE)
    best = min(peer["loss"] for peer in peers.values())
    loss = held_out.loss_of_folder(folder / "toolkit")
    figures = {"loss": loss, "steps": result["num_steps"], "seconds": result["training_seconds"]}
    record = {"unit": "nats", "minutes": minutes, "Trainer, by learning rate": peers, "toolkit": figures}
    record |= held_out.frequencies() | {"toolkit below the best of Trainer": best - loss}
    record["minutes of the toolkit to the best of Trainer"] = minutes_to(folder / "toolkit", best)
    write_record("bench_mlm_race", record)


def minutes_to(folder: Path, loss: float) -> float:
    """Minutes until the evaluations of a run, which use fewer windows, first reached `loss`; infinite if never."""
    for line in read_log(folder):
        if line.get("validation_loss", math.inf) <= loss:
            return line["seconds"] / 60
    return math.inf


if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        print(json.dumps(once(sys.argv[2], int(sys.argv[3]))))
    elif sys.argv[1:2] == ["race"]:
        race(*sys.argv[2:5], *map(float, sys.argv[5:6]))
    else:
        speed(*map(int, sys.argv[2:3]))
