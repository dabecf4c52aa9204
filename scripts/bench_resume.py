#!/usr/bin/env python
"""Seconds until one step is done, in a new run and in a run that resumes at 90% of a long epoch.

    python scripts/bench_resume.py [ROUNDS]

A bert-tiny on the sample text, windows of 16 tokens, batch 8, some 5,000 steps an epoch; the toolkit's `train` and
`transformers.Trainer` on the same windows. Both first train up to 90% of the epoch and save a checkpoint. Then
processes take turns: one step from the start, and one step from that checkpoint, each until the weights are saved.
Measured are the seconds of the whole process, with imports, tokenizer and windows, and of training alone. Record:
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
from benchmarking import BertOnSample, alternate, write_record
from transformers import DataCollatorForLanguageModeling, Trainer
from transformers import TrainingArguments as TrainerArguments

from toolkit.training.arguments import TrainingArguments
from toolkit.training.inputs import TrainingData, TrainingOutput
from toolkit.training.loop import train

BATCH_SIZE = 8

bert = BertOnSample("bert-tiny", 16)
steps = round(0.9 * len(bert.rows) / BATCH_SIZE)


def train_with_toolkit(folder: Path, max_steps: int, resume: bool) -> float:
    model = bert.new_model()
    arguments = TrainingArguments(max_steps=max_steps, batch_size=BATCH_SIZE, save_steps=steps, resume=resume)
    start = time.perf_counter()
    train(model, TrainingData(bert.rows, bert.collate), arguments, TrainingOutput(folder, bert.tokenizer))
    return time.perf_counter() - start


def train_with_trainer(folder: Path, max_steps: int, resume: bool) -> float:
    model = bert.new_model()
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
    collator = DataCollatorForLanguageModeling(bert.tokenizer)
    trainer = Trainer(model, arguments, train_dataset=bert.rows, data_collator=collator)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=resume)
    return time.perf_counter() - start


def time_process(name: str, folder: Path, max_steps: int, resume: bool) -> float:
    """Seconds of a whole process. Adds the seconds of training alone to `TRAINING_SECONDS`."""
    arguments = [name, str(folder), str(max_steps), "resumed" if resume else "started"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, "once", *arguments], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    TRAINING_SECONDS.setdefault(f"{name}, {arguments[-1]}", []).append(float(done.stdout.split()[-1]))
    return seconds


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        folders = {name: Path(root) / name for name in ALTERNATIVES}
        for name, train_with in ALTERNATIVES.items():
            print(f"{name}: {steps} steps first, {train_with(folders[name], steps, False):.0f} s", flush=True)

        def one_step(name: str, resume: bool) -> float:
            folder = Path(root) / "once"
            if resume:
                shutil.copytree(folders[name], folder)
            seconds = time_process(name, folder, steps + 1 if resume else 1, resume)
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
    found["medians of training alone"] = {name: statistics.median(values) for name, values in TRAINING_SECONDS.items()}
    write_record("bench_resume", {"unit": "s", "steps before": steps, "examples": len(bert.rows)} | found)


ALTERNATIVES = {"toolkit": train_with_toolkit, "Trainer": train_with_trainer}
TRAINING_SECONDS: dict[str, list[float]] = {}

if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        _, _, name, folder, max_steps, what = sys.argv
        print(ALTERNATIVES[name](Path(folder), int(max_steps), what == "resumed"))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
