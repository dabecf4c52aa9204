#!/usr/bin/env python
"""Check that two versions of the toolkit train the same weights, byte for byte.

    git worktree add ../old COMMIT
    python scripts/compare_versions.py ../old . [--only bert --only pos-elmo]

Each method of pretraining and each kind of fine-tuning runs for 20 steps with one seed in both checkouts, on the
embedded samples. The script compares the SHA-256 of every `.safetensors` file, each loss in `train_log.jsonl` at full
precision, and every metric in `results.json`. It prints one line per run and exits with code 1 if any of them differ.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

TRAINING = ["--max_steps", "20", "--logging_steps", "5", "--eval_steps", "10", "--seed", "0"]
BATCH = ["--batch_size", "16"]
VECTORS = ["--num_train_epochs", "1", "--workers", "1", "--seed", "0"]
DIGITS = ["--preset", "resnet-tiny", "--image_size", "16"]
FEW_SHOT = ["--data", "sample", "--shots", "4", "--seeds", "2", "--max_steps", "10"]

# Name of the run -> words of the command. `{NAME}` is the output folder of an earlier run.
RUNS: dict[str, list[str]] = {
    "word2vec": ["pretrain", "word2vec", "--corpus", "sample", "--preset", "word2vec-tiny", *VECTORS],
    "fasttext": ["pretrain", "fasttext", "--corpus", "sample", "--preset", "fasttext-tiny", *VECTORS],
    "elmo": ["pretrain", "elmo", "--corpus", "sample", "--preset", "elmo-tiny", *TRAINING, *BATCH],
    "elmo-windows": (
        ["pretrain", "elmo", "--corpus", "sample", "--preset", "elmo-tiny", "--consecutive_windows", "4"]
        + [*TRAINING, *BATCH, "--gradient_accumulation_steps", "2"]
    ),
    "bert": ["pretrain", "bert", "--corpus", "sample", "--preset", "bert-tiny", *TRAINING, *BATCH],
    "bert-packed": (
        ["pretrain", "bert", "--corpus", "sample", "--preset", "bert-tiny", "--packing", "lines", "--optim", "muon"]
        + ["--whole_word_mask", "--output_bias", "frequencies", "--mlm_probability_end", "0.15", *TRAINING, *BATCH]
    ),
    "electra": ["pretrain", "electra", "--corpus", "sample", "--preset", "electra-tiny", *TRAINING, *BATCH],
    "resnet": ["pretrain", "resnet", "--corpus", "sample", *DIGITS, "--augment", "flip", "shift", "color", *TRAINING],
    "resnet-fast": (
        ["pretrain", "resnet", "--corpus", "sample", "--preset", "resnet-fast-mini", "--image_size", "16"]
        + ["--image_size_start", "12", "--label_smoothing", "0.1", "--optim", "sgd", "--learning_rate", "0.1"]
        + TRAINING
    ),
    "pooled": ["pretrain", "resnet", "--corpus", "sample", *DIGITS, "--pooling", "gem", *TRAINING],
    "lenet": ["pretrain", "lenet", "--corpus", "sample", *TRAINING],
    "googlenet": ["pretrain", "googlenet", "--corpus", "sample", "--image_size", "16", *TRAINING],
    "mlp": ["pretrain", "mlp", "--corpus", "sample", "--preset", "mlp-tiny", "--image_size", "16", *TRAINING],
    "vit": ["pretrain", "vit", "--corpus", "sample", "--preset", "vit-tiny", "--image_size", "16", *TRAINING],
    "simclr": ["pretrain", "simclr", "--corpus", "sample", *DIGITS, *TRAINING, "--batch_size", "32"],
    "vit-mae": ["pretrain", "vit-mae", "--corpus", "sample", "--preset", "vit-tiny", "--image_size", "16", *TRAINING],
    "prototypical": ["pretrain", "prototypical", "--corpus", "sample", *DIGITS, "--ways", "5", *TRAINING],
    "pos-word2vec": ["finetune", "pos", "--encoder", "{word2vec}", "--data", "sample", *TRAINING, *BATCH],
    "pos-fasttext": ["finetune", "pos", "--encoder", "{fasttext}", "--data", "sample", *TRAINING, *BATCH],
    "pos-elmo": (
        ["finetune", "pos", "--encoder", "{elmo}", "--data", "sample", "--head", "crf", "--word_dropout", "0.1"]
        + [*TRAINING, *BATCH]
    ),
    "pos-bert": ["finetune", "pos", "--encoder", "{bert}", "--data", "sample", *TRAINING, *BATCH],
    "pos-scratch": ["finetune", "pos", "--encoder", "scratch:{bert}", "--data", "sample", *TRAINING, *BATCH],
    "pos-frozen": ["finetune", "pos", "--encoder", "{bert}", "--data", "sample", "--freeze", *TRAINING, *BATCH],
    "text-elmo": ["finetune", "text", "--encoder", "{elmo}", "--data", "sample", *TRAINING, *BATCH],
    "text-electra": ["finetune", "text", "--encoder", "{electra}", "--data", "sample", *TRAINING, *BATCH],
    "text-preset": (
        ["finetune", "text", "--encoder", "scratch:bert-tiny", "--data", "sample", "--train_size", "5", "--per_class"]
        + [*TRAINING, *BATCH]
    ),
    "image-resnet": ["finetune", "image", "--encoder", "{resnet}", "--data", "sample", *TRAINING],
    "image-threshold": (
        ["finetune", "image", "--encoder", "{resnet}", "--data", "sample", "--labels", "3", "8", "--choose_threshold"]
        + ["--figure", "roc_auc", "--class_weights", "--flip_at_test", *TRAINING]
    ),
    "image-frozen": ["finetune", "image", "--encoder", "{simclr}", "--data", "sample", "--freeze", *TRAINING],
    "image-random": (
        ["finetune", "image", "--encoder", "scratch:resnet-tiny", "--image_size", "16", "--data", "sample"]
        + ["--freeze", *TRAINING]
    ),
    "few-shot-episodes": (
        ["fewshot", "evaluate", "--encoder", "{prototypical}", "--data", "sample", "--episodes", "50", "--seed", "0"]
    ),
    "few-shot-linear": ["fewshot", "evaluate", "--encoder", "{elmo}", "--method", "linear", *FEW_SHOT],
    "few-shot-lp-ft": ["fewshot", "evaluate", "--encoder", "{bert}", "--method", "lp-ft", *FEW_SHOT],
    "few-shot-contrastive": ["fewshot", "evaluate", "--encoder", "{word2vec}", "--method", "contrastive", *FEW_SHOT],
    "few-shot-fit": (
        ["fewshot", "fit", "--encoder", "{resnet}", "--data", "sample", "--shots", "5", "--method", "contrastive"]
    ),
    "zero-shot": ["zeroshot", "evaluate", "--encoder", "{word2vec}", "--data", "sample", "--seen_fraction", "0.5"],
}


def with_earlier_runs(names: Collection[str]) -> list[str]:
    """These runs and those whose folders they read, in the order of `RUNS`."""
    needed = {name: re.findall(r"\{([\w-]+)\}", " ".join(command)) for name, command in RUNS.items()}
    return [name for name in RUNS if name in names or any(name in needed[other] for other in names)]


def words_of(command: list[str], output_dir: Path, root: Path) -> list[str]:
    """The command with `{NAME}` replaced by the folder of that run, and `--output_dir`."""
    folders = {name: str(root / name) for name in RUNS}
    return [*(word.format(**folders) for word in command), "--output_dir", str(output_dir)]


def run(name: str, checkout: Path, root: Path) -> str | None:
    """Run one command of a checkout. Returns the error message, or None if it succeeded."""
    environment = {**os.environ, "HF_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "toolkit", *words_of(RUNS[name], root / name, root)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2]


def fingerprint(folder: Path) -> dict[str, Any]:
    """What must be equal in both versions: hashes of weights, losses, metrics."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        if not file.relative_to(folder).parts[0].startswith("checkpoint-"):
            found[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    log = folder / "train_log.jsonl"
    for line in map(json.loads, log.read_text().splitlines() if log.is_file() else ()):
        for field in ("loss", "validation_loss", "validation_accuracy", "grad_norm", "learning_rate"):
            if field in line:
                found[f"step {line['step']}: {field}"] = line[field]
    record = json.loads((folder / "results.json").read_text())
    for field, value in record["metrics"].items():
        found[f"metric {field}"] = value
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="Checkout of the older version.")
    parser.add_argument("new", type=Path, help="Checkout of the newer version.")
    parser.add_argument(
        "--only", action="append", choices=list(RUNS), help="This run and those it needs (repeatable)."
    )
    parser.add_argument("--keep", type=Path, help="Folder for the runs; runs of OLD found there are not repeated.")
    arguments = parser.parse_args()
    names = with_earlier_runs(arguments.only or list(RUNS))
    different = []
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        for name in names:
            fingerprints = {}
            for version, checkout in (("old", arguments.old.resolve()), ("new", arguments.new.resolve())):
                kept = (root / version / name / "results.json").is_file() and version == "old"
                error = None if kept else run(name, checkout, (root / version).resolve())
                fingerprints[version] = {"error": error} if error else fingerprint(root / version / name)
            keys = {**fingerprints["old"], **fingerprints["new"]}
            differing = [key for key in keys if fingerprints["old"].get(key) != fingerprints["new"].get(key)]
            print(f"{name:<22}{len(keys):>4} values, {len(differing)} differ", *differing[:3], sep="  ", flush=True)
            if failed := [
                f"{version}: {found['error']}" for version, found in fingerprints.items() if found.get("error")
            ]:
                print("", *failed, sep="\n    ", flush=True)
            different += [name] if differing or failed else []
    print(f"{len(names)} runs, {len(different)} differ: {', '.join(different) or 'none'}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
