#!/usr/bin/env python
"""Train and score Phonetisaurus on pronunciations, as a peer of `toolkit finetune seq2seq`.

    pip install 'pretrain-transfer-toolkit[bench]'
    python scripts/bench_g2p.py [DATA [RUN [REMOVE]]]

Phonetisaurus aligns letters with phonemes and makes an n-gram model of the pairs, as a weighted finite-state
transducer: Novak, Minematsu & Hirose (2016), "Phonetisaurus: exploring grapheme-to-phoneme conversion with joint
n-gram models in the WFST framework", https://doi.org/10.1017/S1351324915000315. DATA, g2p_cmudict in TOOLKIT_DATA by
default, is read as the task reads it, without what the regular expression REMOVE matches in targets (default: [012],
the stress). The folder RUN (runs/phonetisaurus) gets `results.json`, with the same figures on the test split, and
`predictions.jsonl`.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarking import data_set, skip_without

from tasks import TASKS
from tasks.inference import write_predictions
from tasks.seq2seq import TargetPrediction
from toolkit.data.pairs import PairColumns
from toolkit.runs.results import RESULTS_FILE, Stopwatch, write_results

RESERVED = set("_|}")  # characters that no word may have


def main(data: str = data_set("g2p_cmudict"), folder: str = "runs/phonetisaurus", remove: str = "[012]") -> None:
    skip_without(data)
    task, stopwatch, run = TASKS["seq2seq"], Stopwatch(), Path(folder)
    source = task.open(data, PairColumns(remove=remove))
    train, test = source.load("train"), source.load("test")
    run.mkdir(parents=True, exist_ok=True)
    phonetisaurus = partial(subprocess.run, check=True, text=True, stdout=subprocess.PIPE)
    command = [sys.executable, "-m", "phonetisaurus"]
    with tempfile.TemporaryDirectory() as temporary:
        lexicon, model = Path(temporary) / "lexicon.txt", Path(temporary) / "model.fst"
        kept = (row for row in train if not RESERVED & set(row["source"]))
        pairs = [(row["source"], target) for row in kept for target in row["targets"]]
        lexicon.write_text("".join(f"{word} {target}\n" for word, target in pairs), encoding="utf-8")
        phonetisaurus([*command, "train", "--model", model, lexicon])
        seconds = stopwatch.seconds
        found = phonetisaurus([*command, "predict", "--model", model], input="\n".join(test["source"]) + "\n").stdout
    predicted = dict(line.split(" ", 1) for line in found.splitlines() if " " in line)
    predictions = [TargetPrediction([predicted.get(word, "")], [1.0], "words") for word in test["source"]]
    write_predictions(task, run, test, predictions, with_picture=False)
    metrics = {name: figure.interval() for name, figure in task.figures(test, predictions).items()}
    for name, figure in metrics.items():
        print(f"{name:<24}{figure['value']:.4f}  [{figure['low']:.4f}, {figure['high']:.4f}]")
    fields = {"task": task.name, "dataset": data, "split": "test", "n": len(test), "metrics": metrics}
    write_results(run / RESULTS_FILE, stopwatch, **fields, encoder="phonetisaurus", training_seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:4])
