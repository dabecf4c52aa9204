#!/usr/bin/env python
"""Make the data, the pictures and the records of docs/sequences.md.

    python scripts/sequences.py unrolled OUT.png
    python scripts/sequences.py synthetic LONGEST FOLDER
    python scripts/sequences.py agreement TREEBANK FOLDER
    python scripts/sequences.py by_distance DATA OUT.png NAME=RUN,RUN… NAME=RUN,RUN…
    python scripts/sequences.py by_length OUT.png NAME=RUN NAME=RUN…
    python scripts/sequences.py by_tag RESULTS_JSON OUT.png ENCODER OTHER
    python scripts/sequences.py beams DATA RUN

`unrolled` draws a recurrent network as a network with a cycle and as the same network unrolled over three words.

`synthetic` writes sentences for `toolkit finetune pos`: a cue word, up to LONGEST filler words, and a question mark
whose tag is the cue word itself; no other word has a tag. `agreement` writes beginnings of sentences of a treebank in
CoNLL-U up to a finite verb, with a question mark in its place, whose tag is the number of the verb; the cue is its
subject (Linzen, Dupoux & Goldberg 2016, https://aclanthology.org/Q16-1037).

`by_distance` draws the accuracy of runs on such sentences by the number of words between the cue and the question
mark, as the mean over runs with different seeds. `by_length` draws the exact match of sequence to sequence
models by the length of the source. `by_tag` draws the F-score of each tag for two encoders of a comparison,
pretrained, with its smallest label budget, as the mean over seeds. `beams` compares beam search with greedy search on
the test split of DATA: the mean log-probability of the targets found, and the figures. Each of the four prints a
record.
"""

import json
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import datasets
import numpy as np
from matplotlib import pyplot
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path as Bezier
from numpy.typing import ArrayLike

from tasks import TASKS
from tasks.inference import Predictor
from tasks.task import SearchArguments
from toolkit.corpora.symbols import split_tags
from toolkit.data.pairs import PairColumns
from toolkit.metrics.intervals import Interval, ratio_interval
from toolkit.runs.results import PREDICTIONS_FILE

MARKERS = ("o", "s", "^", "D", "v")
SIGNALS = "red blue green black white pink grey brown gold teal lime navy plum rust sand ruby".split()
FILLERS, QUESTION = [f"w{number}" for number in range(64)], "?"
SIZES = {"train": 10_000, "validation": 500, "test": 2000}
BUCKETS = ((0, 1), (1, 2), (2, 3), (3, 5), (5, 9), (9, 17), (17, 33), (33, 49), (49, 65), (65, 81), (81, 97))
LENGTHS = ((1, 5), (5, 7), (7, 9), (9, 11), (11, 13), (13, 16), (16, 41))


def draw_unrolled(path: str) -> None:
    figure, axes = pyplot.subplots(figsize=(7.2, 2.9), layout="constrained")

    def node(x: float, y: float, text: str, color: str) -> None:
        shape = {"boxstyle": "circle,pad=0.35", "facecolor": color, "edgecolor": "black"}
        axes.text(x, y, text, ha="center", va="center", bbox=shape)

    def arrow(start: tuple[float, float], end: tuple[float, float], label: str) -> None:
        style = {"arrowstyle": "->", "shrinkA": 14, "shrinkB": 14}
        axes.annotate("", end, start, arrowprops=style)
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(
            x + (0.06 if start[0] == end[0] else 0), y + (0 if start[0] == end[0] else 0.07), label, color="tab:red"
        )

    for x, step in ((0.0, "t"), (1.5, "1"), (2.5, "2"), (3.5, "3")):
        node(x, 0, f"$x_{step}$", "white")
        node(x, 1, f"$h_{step}$", "lightblue")
        node(x, 2, f"$y_{step}$", "white")
        arrow((x, 0), (x, 1), "$W_i$")
        arrow((x, 1), (x, 2), "$W_o$")
    curve = [Bezier.MOVETO] + 3 * [Bezier.CURVE4]
    loop = Bezier([(-0.1, 1.14), (-0.6, 1.7), (-0.6, 0.3), (-0.1, 0.86)], curve)
    axes.add_patch(FancyArrowPatch(path=loop, arrowstyle="->", mutation_scale=12))
    axes.text(-0.52, 1.0, "$W_h$", color="tab:red", ha="right", va="center")
    arrow((1.5, 1), (2.5, 1), "$W_h$")
    arrow((2.5, 1), (3.5, 1), "$W_h$")
    axes.text(0.78, 1, "=", fontsize=20, ha="center", va="center")
    axes.set_xlim(-0.9, 3.9)
    axes.set_ylim(-0.4, 2.4)
    axes.axis("off")
    figure.savefig(path, dpi=130)


def write_split(folder: Path, split: str, rows: list[dict], names: Sequence[str]) -> None:
    """Write rows of `tokens`, and of `tags` of which only the last one counts."""
    tags = datasets.List(datasets.ClassLabel(names=list(names)))
    columns = {"tokens": datasets.List(datasets.Value("string")), "tags": tags, "distance": datasets.Value("int32")}
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=datasets.Features(columns)).to_parquet(folder / f"{split}.parquet")


def write_synthetic(longest: str, folder: str) -> None:
    rng = random.Random(0)
    for split, size in SIZES.items():
        rows = []
        for _ in range(size):
            label, distance = rng.randrange(len(SIGNALS)), rng.randint(0, int(longest))
            tokens = [SIGNALS[label], *rng.choices(FILLERS, k=distance), QUESTION]
            rows.append({"tokens": tokens, "tags": [-1] * (distance + 1) + [label], "distance": distance})
        write_split(Path(folder), split, rows, SIGNALS)


def write_agreement(treebank: str, folder: str) -> None:
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        rows = []
        for sentence in (Path(treebank) / f"{name}.conllu").read_text(encoding="utf-8").split("\n\n"):
            lines = [line.split("\t") for line in sentence.splitlines() if line and not line.startswith("#")]
            words = {int(fields[0]): fields for fields in lines if fields[0].isdigit()}
            heads = {number: int(fields[6]) for number, fields in words.items()}
            for number, fields in words.items():
                features = dict(pair.split("=") for pair in fields[5].split("|") if "=" in pair)
                if features.get("VerbForm") != "Fin" or features.get("Number") not in ("Sing", "Plur"):
                    continue
                governor = heads[number] if fields[7] in ("aux", "cop", "aux:pass") else number
                subjects = [i for i in range(1, number) if heads[i] == governor and words[i][7].startswith("nsubj")]
                if not subjects:
                    continue
                tokens = [words[i][1] for i in range(1, number)] + [QUESTION]
                tags = [-1] * (number - 1) + [int(features["Number"] == "Plur")]
                rows.append({"tokens": tokens, "tags": tags, "distance": number - subjects[-1] - 1})
        write_split(Path(folder), split, rows, ("Sing", "Plur"))


def lines_of(run: str) -> list[dict]:
    return [json.loads(line) for line in (Path(run) / PREDICTIONS_FILE).read_text(encoding="utf-8").splitlines()]


def draw(path: str, curves: dict[str, dict], x_label: str, y_label: str, chance: float | None) -> None:
    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    names = list(dict.fromkeys(name for buckets in curves.values() for name in buckets))
    for (name, buckets), marker in zip(curves.items(), cycle(MARKERS), strict=False):
        x = [names.index(bucket) for bucket in buckets]
        values = [100 * bucket["value"] for bucket in buckets.values()]
        low = [value - 100 * bucket["low"] for value, bucket in zip(values, buckets.values(), strict=True)]
        high = [100 * bucket["high"] - value for value, bucket in zip(values, buckets.values(), strict=True)]
        axes.errorbar(x, values, yerr=[low, high], marker=marker, capsize=3, label=name)
    axes.set_xticks(range(len(names)), names)
    if chance is not None:
        axes.axhline(100 * chance, color="black", linestyle=":", label="majority class")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def name_of(bucket: tuple[int, int]) -> str:
    low, high = bucket
    return str(low) if high == low + 1 else f"{low}–{high - 1}"


def by_bucket(values: ArrayLike, places: ArrayLike, buckets: Sequence[tuple[int, int]]) -> dict[str, Interval]:
    """The mean of `values` (N,) whose `places` (N,) are in each bucket, of at least 20."""
    found = {bucket: np.asarray(values)[np.isin(places, range(*bucket))] for bucket in buckets}
    return {name_of(bucket): ratio_interval(x, np.ones(len(x))) for bucket, x in found.items() if len(x) >= 20}


def draw_by_distance(data: str, path: str, *named: str) -> None:
    """Read the distances from the test split of `data`, in the order of the predictions."""
    rows = datasets.Dataset.from_parquet(str(Path(data) / "test.parquet"))
    right = [tags[-1] for tags in rows["tags"]]
    names = rows.features["tags"].feature.names
    curves, of_seeds = {}, {}
    for name, runs in (each.split("=") for each in named):
        predicted = [[line["predicted"][-1] for line in lines_of(run)] for run in runs.split(",")]
        is_right = np.array(predicted) == [names[answer] for answer in right]  # (runs, sentences)
        curves[name] = by_bucket(is_right.mean(axis=0), rows["distance"], BUCKETS)
        means = is_right.mean(axis=1).tolist()
        of_seeds[name] = {"value": sum(means) / len(means), "low": min(means), "high": max(means)}
    chance = max(Counter(right).values()) / len(right)
    draw(path, curves, "words between the cue and the question mark", "accuracy, %", chance)
    record = {"chance": chance, "n": len(right), "mean, lowest and highest of seeds": of_seeds, "curves": curves}
    print(json.dumps(record, indent=2))


def draw_by_length(path: str, *named: str) -> None:
    curves: dict[str, dict] = {}
    for name, run in (each.split("=") for each in named):
        lines = lines_of(run)
        lengths = [len(split_tags(line["source"])[1]) for line in lines]
        right = [line["predicted"] in line["targets"] for line in lines]
        curves[name] = by_bucket(right, lengths, LENGTHS)
    draw(path, curves, "characters of the source", "exact match, %", None)
    print(json.dumps({"curves": curves}, indent=2))


def draw_by_tag(results: str, path: str, encoder: str, other: str) -> None:
    encoders = {each["name"]: each for each in json.loads(Path(results).read_text())["encoders"]}
    scores: dict[str, dict[str, float]] = {}
    for name in (encoder, other):
        runs = encoders[name]["budgets"][0]["pretrained"]["folders"]
        metrics = [json.loads((Path(run) / "results.json").read_text())["metrics"] for run in runs]
        tags = [key.removeprefix("f1_") for key in metrics[0] if key.startswith("f1_")]
        scores[name] = {tag: float(np.mean([each[f"f1_{tag}"]["value"] for each in metrics])) for tag in tags}
    tags = sorted(scores[encoder], key=lambda tag: scores[encoder][tag] - scores[other][tag])
    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), layout="constrained")
    places = np.arange(len(tags))
    for marker, (name, of_tag) in zip(MARKERS, scores.items(), strict=False):
        axes.plot([100 * of_tag[tag] for tag in tags], places, marker, label=name)
    for place, tag in zip(places, tags, strict=True):
        axes.plot([100 * scores[encoder][tag], 100 * scores[other][tag]], [place, place], color="grey", zorder=0)
    axes.set_yticks(places, tags)
    axes.set_xlabel("F-score, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=130)
    print(json.dumps({name: dict(sorted(of_tag.items())) for name, of_tag in scores.items()}, indent=2))


def compare_beams(data: str, run: str) -> None:
    """The length penalty is 0, so that the search looks for the highest log-probability."""
    task, record = TASKS["seq2seq"], {}
    for num_beams, length_penalty in ((1, None), (5, 0.0)):
        search = SearchArguments(num_beams=num_beams, length_penalty=length_penalty)
        predictor = Predictor(task, run, search)
        rows = task.open(data, task.columns_of(PairColumns(), predictor.model.config)).load("test")
        found = predictor(rows)
        scores = [math.log(prediction.probabilities[0]) for prediction in found]
        figures = {name: figure.interval() for name, figure in task.figures(rows, found).items()}
        of_scores = ratio_interval(scores, [1] * len(scores))
        record[f"{num_beams} beams"] = {"mean log-probability": of_scores, **figures}
    print(json.dumps(record, indent=2))


COMMANDS = {
    "beams": compare_beams,
    "unrolled": draw_unrolled,
    "synthetic": write_synthetic,
    "agreement": write_agreement,
    "by_distance": draw_by_distance,
    "by_length": draw_by_length,
    "by_tag": draw_by_tag,
}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
