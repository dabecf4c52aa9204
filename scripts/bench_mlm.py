#!/usr/bin/env python
"""Pretraining a BERT, beside `transformers.Trainer` with the recipe of transformers' run_mlm example.

    python scripts/bench_mlm.py speed [ROUNDS]
    python scripts/bench_mlm.py race CORPUS VALIDATION_CORPUS RUNS_DIR [MINUTES]

A BERT of 4 layers of 256 and 4 heads, sequences of 128, batch 32, both on the same windows. The recipe: 15% of the
tokens masked anew each time, dropout 0.1, AdamW, a learning rate that falls linearly, float32. A processor that does
not know bfloat16 is asked for float32 alone.

speed: tokens a second, processes of a few steps each in turns, on random tokens with vocabularies of 8,192 and 30,522,
with and without bfloat16, and the share of the machine's matrix-multiply peak (1024 x 1024, measured in the same run):
the multiplications that the steps carry out, see `flops`, by their time. Record: docs/results/bench_mlm.json.

race: MINUTES (30) each of the peer at three learning rates, then of the toolkit with the recipe `OURS` on the
same tokenizer; losses on the same held-out windows and masks, beside the cross-entropy of a guess by frequency alone.
Started again, it goes on with the run that is missing. Record: docs/results/bench_mlm_race.json.
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
from alternation import KNOWS_BFLOAT16, alternate_processes, peaks, share_of_peak, write
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
from toolkit.pretraining.bert import EVAL_MASKED_SHARE, MaskTokens, count_tokens
from toolkit.runs.output import write_json
from toolkit.runs.results import LOG_FILE, Stopwatch
from toolkit.training.arguments import TrainingArguments
from toolkit.training.distributed import make_accelerator
from toolkit.training.evaluation import held_out_loss
from toolkit.training.inputs import TrainingData, TrainingOutput
from toolkit.training.loop import train

LAYERS, WIDTH, LENGTH, BATCH_SIZE, STEPS = 4, 256, 128, 32, 10
SPECIAL_IDS = [0, 1, 2, 3, 4]
PEER_RATES = (5e-4, 1e-3, 2e-3)
OURS = {  # that of the record; AdamW has become the default since, docs/pretraining.md says why
    "batch_size": 16,
    "optim": "muon",
    "learning_rate": 3e-3,
    "embeddings": "word2vec",
    "output_bias": "frequencies",
    "attention": "neighbours",
    "mlm_probability": 0.3,
    "mlm_probability_end": 0.15,
    "bf16": KNOWS_BFLOAT16,
}


def flops(vocab_size: int, masked_only: bool) -> float:
    """Floating-point operations of matrix products in one step, forwards and twice that backwards: two for each weight
    that a token meets, and for each number of a token's states beside each other token, in scores and in their sums.
    Where only masked positions go on, the last layer's queries, its output and its feed-forward are of those alone."""
    masked = EVAL_MASKED_SHARE if masked_only else 1.0
    a_matrix, scores = 2 * WIDTH * WIDTH, 2 * 2 * LENGTH * WIDTH
    a_layer = 12 * a_matrix + scores  # queries, keys, values, output; feed-forward of four times the width
    last_layer = 2 * a_matrix + masked * (10 * a_matrix + scores)
    output = masked * (a_matrix + 2 * WIDTH * vocab_size)
    return 3 * BATCH_SIZE * LENGTH * ((LAYERS - 1) * a_layer + last_layer + output)


def new_model(vocab_size: int) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(presets()["bert-mini"].config(vocab_size))


class Clock(TrainerCallback):
    def __init__(self):
        self.times: list[float] = []

    def on_step_end(self, *arguments, **keywords):
        self.times.append(time.perf_counter())


def peer_trainer(rows, tokenizer, folder: Path, rate: float, callbacks=(), **limits: Any) -> Trainer:
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(presets()["bert-mini"].config(len(tokenizer)))
    arguments = TrainerArguments(
        str(folder),
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=rate,
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


def once(way: str, vocab_size: int) -> dict[str, float]:
    """In a process of its own: seconds a step, after two to get warm, and peak memory."""
    rng = np.random.default_rng(0)
    rows = Dataset.from_dict({"input_ids": rng.integers(5, vocab_size, (BATCH_SIZE * STEPS, LENGTH)).tolist()})
    words = [f"w{i}" for i in range(vocab_size - len(SPECIAL_IDS))]
    tokenizer = word_level_tokenizer(words, bert_normalizer())
    with tempfile.TemporaryDirectory() as folder:
        if way.startswith("Trainer"):
            clock = Clock()
            peer_trainer(
                rows, tokenizer, Path(folder), 5e-4, [clock], max_steps=STEPS, bf16=way.endswith("bf16")
            ).train()
            times = clock.times
        else:
            collate = MaskTokens(tokenizer.pad_token_id, tokenizer.mask_token_id, SPECIAL_IDS, vocab_size, seed=0)
            arguments = TrainingArguments(
                max_steps=STEPS, batch_size=BATCH_SIZE, logging_steps=1, bf16=way.endswith("bf16")
            )
            model = new_model(vocab_size)
            model.set_dropout(0.0)  # the toolkit's default
            train(model, TrainingData(rows, collate), arguments, TrainingOutput(Path(folder)))
            log = (Path(folder) / "train_log.jsonl").read_text().splitlines()
            times = [json.loads(line)["seconds"] for line in log]
    return {"seconds": (times[-1] - times[1]) / (STEPS - 2), "peak_memory_mb": Stopwatch().peak_memory_mb}


def speed(rounds: int = 3) -> None:
    found_peaks = peaks()
    record: dict[str, Any] = {"unit": "tokens/s", "steps": STEPS - 2, "peak, GFLOP/s": found_peaks}
    suffixes = (", bf16", "") if KNOWS_BFLOAT16 else ("",)
    names = [f"{name}{suffix}" for suffix in suffixes for name in ("toolkit", "Trainer")]
    for vocab_size in (8_192, 30_522):
        ways = {way: [way, str(vocab_size)] for way in names}
        found = alternate_processes(__file__, ways, rounds, BATCH_SIZE * LENGTH)
        found["share of the peak"] = {}
        for way, tokens in found["medians"].items():
            done = flops(vocab_size, way.startswith("toolkit")) / (BATCH_SIZE * LENGTH) * tokens
            found["share of the peak"][way] = share_of_peak(way, done, found_peaks)
        record[f"vocabulary of {vocab_size:,}"] = found
    write("bench_mlm", record)


# race


class Deadline(TrainerCallback):
    """Lets the learning rate fall linearly over minutes in the place of steps, and ends there."""

    def __init__(self, minutes: float, rate: float):
        self.seconds, self.rate, self.start = 60 * minutes, rate, time.perf_counter()

    def progress(self) -> float:
        return (time.perf_counter() - self.start) / self.seconds

    def on_train_begin(self, *arguments, **keywords):
        self.start = time.perf_counter()

    def on_step_begin(self, args, state, control, optimizer=None, **keywords):
        for group in optimizer.param_groups:
            group["lr"] = self.rate * max(0.0, 1 - self.progress())

    def on_step_end(self, args, state, control, **keywords):
        control.should_training_stop = self.progress() >= 1


class HeldOut:
    """Windows of a text with one tokenizer, trained on the corpus, and losses of models on held-out ones."""

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
        special = self.tokenizer.all_special_ids
        ids = self.tokenizer.pad_token_id, self.tokenizer.mask_token_id
        self.collate, self.accelerator = MaskTokens(*ids, special, len(self.tokenizer), seed=0), make_accelerator()

    def loss(self, model) -> float:
        return held_out_loss(model.eval(), self.rows, self.collate, 16, self.accelerator)

    def loss_of_folder(self, folder: Path) -> float:
        return self.loss(BertForMaskedLM.from_pretrained(folder))

    def frequencies(self) -> dict[str, float]:
        """What a guess by frequency alone would reach."""
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
        place = folder / f"peer-{rate:g}"
        if not (place / "record.json").is_file():
            callbacks = [Deadline(minutes, rate)]
            limits = {"max_steps": 10**7, "lr_scheduler_type": "constant"}
            trainer = peer_trainer(held_out.train_rows, held_out.tokenizer, place, rate, callbacks, **limits)
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
            model = new_model(len(held_out.tokenizer))
            model.load_state_dict(trainer.model.state_dict())
            record = {"loss": held_out.loss(model), "steps": trainer.state.global_step, "seconds": seconds}
            write_json(place / "record.json", record)
        peers[f"{rate:g}"] = json.loads((place / "record.json").read_text())
        print(f"Trainer, {rate:g}: {peers[f'{rate:g}']}", flush=True)
    ours = {"corpus": corpus, "validation_corpus": validation_corpus, "tokenizer": str(folder / "tokenizer")}
    ours |= {"output_dir": str(folder / "toolkit"), "max_minutes": minutes, "resume": True}
    result = pretrain("bert", **ours, **OURS)
    best = min(peer["loss"] for peer in peers.values())
    loss = held_out.loss_of_folder(folder / "toolkit")
    figures = {"loss": loss, "steps": result["num_steps"], "seconds": result["training_seconds"]}
    record = {"unit": "nats", "minutes": minutes, "Trainer, by learning rate": peers, "toolkit": figures}
    record |= held_out.frequencies() | {"toolkit below the best of Trainer": best - loss}
    record["minutes of the toolkit to the best of Trainer"] = minutes_to(folder / "toolkit" / LOG_FILE, best)
    write("bench_mlm_race", record)


def minutes_to(log: Path, loss: float) -> float:
    """When a run's own evaluations, which are of fewer windows, first saw that loss; infinite if never."""
    for line in map(json.loads, log.read_text().splitlines()):
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
