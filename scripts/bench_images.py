#!/usr/bin/env python
"""Train an image classifier from scratch in ten minutes, and compare `transformers.Trainer` with the recipe of
transformers' image-classification example.

    python scripts/bench_images.py [DATA] [RUNS_DIR] [MINUTES] [SEEDS]
    python scripts/bench_images.py ../shared/data/cifar10 runs/bench_images 10 3
    python scripts/bench_images.py recipe

DATA, CIFAR-10 in TOOLKIT_DATA by default, has a column of images, one of labels, and the splits train and test. Every
run trains for MINUTES (10). The toolkit's `scratch:resnet-fast` runs with SEEDS (3) seeds. The peer runs with one: a
ResNet-18 of transformers with random weights, images at their own size, random crops of any scale, flips, batches of
8, AdamW at 5e-5 with linear decay, float32. Both are scored once on the test split with their last weights. A repeated
command runs only what is missing. Record: docs/results/bench_images.json. `recipe` prints the flags for training a
resnet-fast that also suit other images.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from bench_mlm import Deadline
from benchmarking import data_set, skip_without, write_record
from torchvision.transforms import v2
from transformers import ResNetConfig, ResNetForImageClassification, Trainer
from transformers import TrainingArguments as TrainerArguments

from toolkit.runs.output import write_json
from toolkit.runs.results import RESULTS_FILE, read_results

CIFAR10 = data_set("cifar10")
RECIPE = "--optim muon --learning_rate 1.2e-2 --batch_size 256 --label_smoothing 0.2 --max_shift 0.0625"
TOOLKIT_FLAGS = RECIPE + " --augment flip shift --image_size_start 24 --flip_at_test --shift_at_test"
TOOLKIT_FLAGS += " --eval_steps 100000"  # evaluate only at the end
PEER_RATE, PEER_BATCH_SIZE = 5e-5, 8
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def run_toolkit(data: str, folder: Path, minutes: float, seed: int) -> dict[str, float]:
    command = [sys.executable, "-m", "toolkit", "finetune", "image", "--encoder", "scratch:resnet-fast", "--resume"]
    command += ["--data", data, "--output_dir", str(folder), "--max_minutes", str(minutes), "--seed", str(seed)]
    if not (folder / RESULTS_FILE).is_file():
        subprocess.run([*command, *TOOLKIT_FLAGS.split()], check=True)
    record = read_results(folder)
    return {
        "accuracy": record["metrics"]["accuracy"]["value"],
        "epochs": record["throughput"] * record["training_seconds"] / record["train_size"],
        "seconds": record["training_seconds"],
        "parameters": record["parameters"],
    }


def run_trainer(data: str, folder: Path, minutes: float) -> dict[str, float]:
    if (folder / "record.json").is_file():
        return json.loads((folder / "record.json").read_text())
    splits = datasets.load_dataset(data)
    features = splits["train"].features
    (image,) = (name for name, feature in features.items() if isinstance(feature, datasets.Image))
    (label,) = (name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel))
    size = splits["train"][0][image].height
    to_tensor = [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    transforms = {
        "train": v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *to_tensor]),
        "test": v2.Compose([v2.Resize(size), v2.CenterCrop(size), *to_tensor]),
    }

    def transform(split: str):
        return lambda rows: {
            "pixel_values": [transforms[split](picture.convert("RGB")) for picture in rows[image]],
            "labels": rows[label],
        }

    train_rows, test_rows = (splits[split].with_transform(transform(split)) for split in transforms)
    torch.manual_seed(0)
    config = ResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=features[label].num_classes,
    )
    arguments = TrainerArguments(
        str(folder),
        max_steps=10**7,
        lr_scheduler_type="constant",  # `Deadline` decays it
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
    write_json(folder / "record.json", record)
    return record


def main(data: str = CIFAR10, runs: str = "runs/bench_images", minutes: float = 10.0, seeds: int = 3) -> None:
    found = [run_toolkit(data, Path(runs) / f"toolkit-{seed}", minutes, seed) for seed in range(seeds)]
    record: dict[str, Any] = {"minutes": minutes, "recipe": TOOLKIT_FLAGS, "toolkit, by seed": found}
    record["mean accuracy of the toolkit"] = statistics.mean(run["accuracy"] for run in found)
    record["Trainer"] = run_trainer(data, Path(runs) / "Trainer", minutes)
    write_record("bench_images", record)


if __name__ == "__main__":
    if sys.argv[1:] == ["recipe"]:
        print(RECIPE)
    else:
        skip_without(CIFAR10)
        main(*sys.argv[1:3], *map(float, sys.argv[3:4]), *map(int, sys.argv[4:5]))
