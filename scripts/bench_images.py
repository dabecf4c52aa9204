#!/usr/bin/env python
"""An image classifier from nothing in ten minutes, beside `transformers.Trainer` with the recipe of transformers'
image-classification example.

    python scripts/bench_images.py [DATA] [RUNS_DIR] [MINUTES] [SEEDS]
    python scripts/bench_images.py ../shared/data/cifar10 runs/bench_images 10 3
    python scripts/bench_images.py recipe

DATA, CIFAR-10 in TOOLKIT_DATA by default, has a column of images, one of labels, and the splits train and test.
MINUTES (10) of training a run: the toolkit's `scratch:resnet-fast` with SEEDS (3) seeds, then the peer with one: a
ResNet-18 of transformers, new, that reads the images at their own size, random crops of any scale turned over,
batches of 8, AdamW at 5e-5 falling linearly, float32. Both are scored on the test split, once, by the last weights.
Started again, it makes the runs that are missing. Record: docs/results/bench_images.json. `recipe` prints how a
resnet-fast is trained here, for other images too.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from alternation import write
from bench_mlm import Deadline
from torchvision.transforms import v2
from transformers import ResNetConfig, ResNetForImageClassification, Trainer
from transformers import TrainingArguments as TrainerArguments

from toolkit.runs.output import write_json
from toolkit.runs.results import RESULTS_FILE, read_results

CIFAR10 = os.path.join(os.environ.get("TOOLKIT_DATA", "../shared/data"), "cifar10")
RECIPE = "--optim muon --learning_rate 1.2e-2 --batch_size 256 --label_smoothing 0.2 --max_shift 0.0625"
OURS = RECIPE + " --augment flip shift --image_size_start 24 --flip_at_test --shift_at_test"
OURS += " --eval_steps 100000"  # its validation images are looked at when the minutes are over
PEER_RATE, PEER_BATCH_SIZE = 5e-5, 8
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def ours(data: str, place: Path, minutes: float, seed: int) -> dict[str, float]:
    command = [sys.executable, "-m", "toolkit", "finetune", "image", "--encoder", "scratch:resnet-fast", "--resume"]
    command += ["--data", data, "--output_dir", str(place), "--max_minutes", str(minutes), "--seed", str(seed)]
    if not (place / RESULTS_FILE).is_file():
        subprocess.run([*command, *OURS.split()], check=True)
    record = read_results(place)
    return {
        "accuracy": record["metrics"]["accuracy"]["value"],
        "epochs": record["throughput"] * record["training_seconds"] / record["train_size"],
        "seconds": record["training_seconds"],
        "parameters": record["parameters"],
    }


def peer(data: str, place: Path, minutes: float) -> dict[str, float]:
    if (place / "record.json").is_file():
        return json.loads((place / "record.json").read_text())
    splits = datasets.load_dataset(data)
    features = splits["train"].features
    (image,) = (name for name, feature in features.items() if isinstance(feature, datasets.Image))
    (label,) = (name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel))
    size = splits["train"][0][image].height
    numbers = [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    changes = {
        "train": v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *numbers]),
        "test": v2.Compose([v2.Resize(size), v2.CenterCrop(size), *numbers]),
    }

    def changed(split: str):
        return lambda rows: {
            "pixel_values": [changes[split](picture.convert("RGB")) for picture in rows[image]],
            "labels": rows[label],
        }

    train_rows, test_rows = (splits[split].with_transform(changed(split)) for split in changes)
    torch.manual_seed(0)
    config = ResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=features[label].num_classes,
    )
    arguments = TrainerArguments(
        str(place),
        max_steps=10**7,
        lr_scheduler_type="constant",  # `Deadline` lets it fall
        per_device_train_batch_size=PEER_BATCH_SIZE,
        per_device_eval_batch_size=256,
        learning_rate=PEER_RATE,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    model, callbacks = ResNetForImageClassification(config), [Deadline(minutes, PEER_RATE)]
    trainer = Trainer(model, arguments, train_dataset=train_rows, callbacks=callbacks)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    predicted = trainer.predict(test_rows)
    record = {
        "accuracy": float((predicted.predictions.argmax(axis=1) == predicted.label_ids).mean()),
        "epochs": trainer.state.global_step * PEER_BATCH_SIZE / len(train_rows),
        "seconds": seconds,
        "parameters": model.num_parameters(),
    }
    write_json(place / "record.json", record)
    return record


def main(data: str = CIFAR10, runs: str = "runs/bench_images", minutes: float = 10.0, seeds: int = 3) -> None:
    found = [ours(data, Path(runs) / f"toolkit-{seed}", minutes, seed) for seed in range(seeds)]
    record: dict[str, Any] = {"minutes": minutes, "recipe": OURS, "toolkit, by seed": found}
    record["mean accuracy of the toolkit"] = statistics.mean(run["accuracy"] for run in found)
    record["Trainer"] = peer(data, Path(runs) / "Trainer", minutes)
    write("bench_images", record)


if __name__ == "__main__":
    if sys.argv[1:] == ["recipe"]:
        print(RECIPE)
    elif len(sys.argv) == 1 and not Path(CIFAR10).is_dir():
        print(f"skipped: no {CIFAR10}; set TOOLKIT_DATA to the folder of the data sets")
    else:
        main(*sys.argv[1:3], *map(float, sys.argv[3:4]), *map(int, sys.argv[4:5]))
