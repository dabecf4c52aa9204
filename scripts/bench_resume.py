#!/usr/bin/env python
"""Seconds until one step is done, in a new run and in one that resumes at 90% of a long epoch.

    python scripts/bench_resume.py [ROUNDS]

A bert-tiny on the sample text, windows of 16 tokens, batch 8, some 5,000 steps an epoch; the toolkit's `train` and
`transformers.Trainer` on the same windows. Both first train up to 90% of the epoch and save there; then, in turns and
in processes of their own, one step from the start and one step from that checkpoint, each until the weights are
saved. The time is measured of the whole process, with libraries, tokenizer and windows, and of training alone. Record:
docs/results/bench_resume.json.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from alternation import alternate, write
from transformers import DataCollatorForLanguageModeling, Trainer
from transformers import TrainingArguments as TrainerArguments

from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import rows_made_of
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.corpora.windows import PieceWindows
from toolkit.models.bert import BertForMaskedLM
from toolkit.models.families import presets
from toolkit.pretraining.bert import MaskTokens
from toolkit.training.arguments import TrainingArguments
from toolkit.training.inputs import TrainingData, TrainingOutput
from toolkit.training.loop import train

BATCH_SIZE, PRESET = 8, presets()["bert-tiny"]

corpus = open_corpus("sample")
tokenizer = train_tokenizer(corpus.texts(), "wordpiece", PRESET.default_size)
rows = rows_made_of(corpus, PieceWindows(tokenizer, 16))
steps = round(0.9 * len(rows) / BATCH_SIZE)


def new_model():
    torch.manual_seed(0)
    return BertForMaskedLM(PRESET.config(len(tokenizer)))


def ours(folder: Path, max_steps: int, resume: bool) -> float:
    model = new_model()
    collate = MaskTokens(
        tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.all_special_ids, len(tokenizer), seed=0
    )
    arguments = TrainingArguments(max_steps=max_steps, batch_size=BATCH_SIZE, save_steps=steps, resume=resume)
    start = time.perf_counter()
    train(model, TrainingData(rows, collate), arguments, TrainingOutput(folder, tokenizer))
    return time.perf_counter() - start


def trainer(folder: Path, max_steps: int, resume: bool) -> float:
    model = new_model()
    arguments = TrainerArguments(
        str(folder),
        max_steps=max_steps,
        per_device_train_batch_size=BATCH_SIZE,
        save_steps=steps,
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    collator = DataCollatorForLanguageModeling(tokenizer)
    peer = Trainer(model, arguments, train_dataset=rows, data_collator=collator)
    start = time.perf_counter()
    peer.train(resume_from_checkpoint=resume)
    return time.perf_counter() - start


def in_a_process(name: str, folder: Path, max_steps: int, resume: bool) -> float:
    """Seconds of a whole process; the seconds of `train` in it are added to `TRAINING`."""
    arguments = [name, str(folder), str(max_steps), "resumed" if resume else "started"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, "once", *arguments], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    TRAINING.setdefault(f"{name}, {arguments[-1]}", []).append(float(done.stdout.split()[-1]))
    return seconds


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        places = {name: Path(root) / name for name in WAYS}
        for name, way in WAYS.items():
            print(f"{name}: {steps} steps first, {way(places[name], steps, False):.0f} s", flush=True)

        def one_step(name: str, resume: bool) -> float:
            folder = Path(root) / "once"
            if resume:
                shutil.copytree(places[name], folder)
            seconds = in_a_process(name, folder, steps + 1 if resume else 1, resume)
            shutil.rmtree(folder)
            return seconds

        found = alternate(
            {
                "toolkit, resumed": lambda: one_step("toolkit", True),
                "Trainer, started": lambda: one_step("Trainer", False),
                "Trainer, resumed": lambda: one_step("Trainer", True),
                "toolkit, started": lambda: one_step("toolkit", False),
            },
            rounds,
        )
    medians = found["medians"]
    found["Trainer, resumed to started"] = medians["Trainer, resumed"] / medians["Trainer, started"]
    found["medians of training alone"] = {name: statistics.median(values) for name, values in TRAINING.items()}
    write("bench_resume", {"unit": "s", "steps before": steps, "examples": len(rows)} | found)


WAYS = {"toolkit": ours, "Trainer": trainer}
TRAINING: dict[str, list[float]] = {}

if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        _, _, name, folder, max_steps, what = sys.argv
        print(WAYS[name](Path(folder), int(max_steps), what == "resumed"))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
