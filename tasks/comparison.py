"""Compare encoders on a task at several label budgets: each pretrained encoder beside the same network from scratch.

"Scratch" is the same network with random weights, trained for the same steps on the task only. The learning rate of
either is the one of the same short list that is best on validation data with the first seed. The gain is a paired
bootstrap over the test items, seeds pooled.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tasks.finetuning import finetune, load_splits
from tasks.task import FinetuneArguments, Task, cells_of
from toolkit.errors import InputError
from toolkit.hub.download import local_copy
from toolkit.metrics.intervals import Bootstrap, Interval, bootstrap_mean
from toolkit.models.families import SCRATCH
from toolkit.runs.arguments import with_flags
from toolkit.runs.output import write_json
from toolkit.runs.results import (
    PREDICTIONS_FILE,
    RESULTS_FILE,
    Stopwatch,
    is_main_process,
    read_results,
    write_results,
)

PRETRAINED, FROM_SCRATCH = "pretrained", "scratch"
NUM_SHOWN = 6  # test items shown side by side in the report


@dataclass(frozen=True)
class Grid:
    """What is compared.

    Attributes:
        encoders: Folders or Hub ids of pretrained encoders, by name.
        train_sizes: Label budgets; None is all labels.
        seeds: Seeds of fine-tuning.
        learning_rates: Short list that validation data chooses from.
        subset_each_seed: Whether each seed has labelled examples of its own.
        with_baseline: Whether the task's usual method without a network is added.
    """

    encoders: dict[str, str]
    train_sizes: Sequence[int | None]
    seeds: Sequence[int]
    learning_rates: Sequence[float]
    subset_each_seed: bool = False
    with_baseline: bool = False
    say: Callable[[str], Any] = field(default=print)


class Cell(NamedTuple):
    """The runs of one encoder, pretrained or from scratch, at one label budget."""

    folders: list[Path]  # one per seed
    tried: dict[str, float]  # for each learning rate the figure on validation data


def compare(task: Task, grid: Grid, arguments: FinetuneArguments) -> dict[str, Any]:
    """Fine-tune every encoder, pretrained and from scratch, at each label budget with each seed.

    Args:
        task: The task.
        grid: What is compared.
        arguments: What all runs share. The output folder receives one folder per run and `results.json`; with
            `resume`, finished runs in it are not repeated.

    Returns:
        The record, which `toolkit.runs.page` draws.
    """
    output_dir = Path(arguments.output.output_dir)
    arguments = arguments.resolved()  # the same for pretrained and scratch, of which only one may be frozen
    stopwatch = Stopwatch()
    baseline = None
    if grid.with_baseline and is_main_process():
        seeds = grid.seeds if grid.subset_each_seed else [arguments.data.subset_seed]
        baseline = run_baseline(task, arguments, grid.train_sizes, seeds, grid.say, output_dir)
    rows = [_compare_encoder(task, grid, arguments, name) for name in grid.encoders]
    cells_by_name = {
        f"{row['name']}, {variant}, {budget['name']}": budget[variant]
        for row in rows
        for budget in row["budgets"]
        for variant in (PRETRAINED, FROM_SCRATCH)
    }
    num_steps = sum(cell["num_steps"] for cell in cells_by_name.values())
    record = {
        "task": task.name,
        "modality": task.modality_name,
        "dataset": arguments.data.data,
        "metrics": {name: cell[arguments.metric] for name, cell in cells_by_name.items()},
        "encoder": list(grid.encoders.values()),
        "seed": grid.seeds[0],
        "num_steps": num_steps,
        "parameters": sum(row["parameters"] for row in rows),
        "throughput": num_steps / stopwatch.seconds,
        "throughput_unit": "steps/s",
        "split": rows[0]["budgets"][0]["split"],
        "n": rows[0]["budgets"][0]["n"],
        "figure": arguments.metric,
        "seeds": list(grid.seeds),
        "subset_each_seed": grid.subset_each_seed,
        "learning_rates": list(grid.learning_rates),
        "encoders": rows,
        "baseline": baseline,
        "examples": _examples(task, arguments, rows),
        "deterministic": arguments.training.max_minutes is None,
    }
    return write_results(output_dir / RESULTS_FILE, stopwatch, **record) if is_main_process() else record


def _compare_encoder(task: Task, grid: Grid, arguments: FinetuneArguments, name: str) -> dict[str, Any]:
    """The row of one encoder: cost of pretraining, and at each label budget figures and gain."""
    folder, budgets = grid.encoders[name], []
    runs_per_cell = len(grid.learning_rates) + len(grid.seeds) - 1
    num_cells = 2 * len(grid.train_sizes)
    num_done = list(grid.encoders).index(name) * num_cells
    for train_size in grid.train_sizes:
        cells, budget = {}, budget_name(train_size, arguments.data.per_class)
        for variant, encoder in ((PRETRAINED, folder), (FROM_SCRATCH, SCRATCH + folder)):
            num_runs = num_cells * len(grid.encoders) * runs_per_cell
            grid.say(f"{num_done * runs_per_cell}/{num_runs} runs done; now {name}, {variant}, {budget}")
            # A frozen encoder with random weights would give random features, so all of it is trained.
            freeze = arguments.encoder.freeze and variant == PRETRAINED
            shared = with_flags(arguments, encoder=encoder, train_size=train_size, freeze=freeze)
            root = Path(arguments.output.output_dir) / name / f"{variant}-{train_size or 'all'}"
            cells[variant] = _run_cell(task, grid, shared, root)
            num_done += 1
        budgets.append({"name": budget, **_compare_cells(task, arguments.metric, **cells)})
    return {
        "name": name,
        "folder": folder,
        "parameters": budgets[0]["parameters"],
        "pretraining": _pretraining(local_copy(folder)),
        "budgets": budgets,
    }


def budget_name(train_size: int | None, per_class: bool) -> str:
    if train_size is None:
        return "all labels"
    return f"{train_size:,} labels a class" if per_class else f"{train_size:,} labels"


def _pretraining(folder: Path) -> dict[str, Any] | None:
    """The record of the pretraining; None for an encoder from elsewhere."""
    return read_results(folder) if (folder / RESULTS_FILE).is_file() else None


def _run_cell(task: Task, grid: Grid, arguments: FinetuneArguments, folder: Path) -> Cell:
    """One run per seed, all with the learning rate that is best on validation data with the first seed."""

    def run(seed: int, learning_rate: float) -> tuple[float, Path]:
        one = with_flags(
            arguments,
            seed=seed,
            subset_seed=seed if grid.subset_each_seed else arguments.data.subset_seed,
            learning_rate=learning_rate,
            output_dir=str(folder / f"seed{seed}-lr{learning_rate:g}"),
        )
        record = finetune(task, one, with_picture=False)
        return record["validation_metrics"][one.metric]["value"], Path(one.output.output_dir)

    tried = {learning_rate: run(grid.seeds[0], learning_rate) for learning_rate in grid.learning_rates}
    best = max(tried, key=lambda learning_rate: tried[learning_rate][0])
    folders = [tried[best][1], *(run(seed, best)[1] for seed in grid.seeds[1:])]
    return Cell(folders, {f"{rate:g}": score for rate, (score, _) in tried.items()})


def run_baseline(
    task: Task,
    arguments: FinetuneArguments,
    train_sizes: Sequence[int | None],
    subset_seeds: Sequence[int],
    say: Callable[[str], Any],
    folder: Path | None = None,
) -> dict[str, Any]:
    """Run the task's usual method without a network at each label budget.

    Args:
        task: The task.
        arguments: Arguments of the comparison.
        train_sizes: Label budgets.
        subset_seeds: Seeds of the choices of labelled examples, which are pooled.
        say: Called with progress.
        folder: Where the result of each budget is kept, and found again with `resume`.

    Returns:
        For each budget the figure with its interval, and the seconds of one choice.
    """
    budgets = []
    for train_size in train_sizes:
        file = folder and folder / f"baseline-{train_size or 'all'}.json"
        if file and arguments.training.resume and file.is_file():  # its flags are checked with those of the runs
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept.get("subset_seeds") == list(subset_seeds):
                budgets.append(kept)
                continue
        say(f"{task.baseline_name}, {budget_name(train_size, arguments.data.per_class)}")
        figures, seconds = [], []
        for subset_seed in subset_seeds:
            rows = load_splits(task, with_flags(arguments, train_size=train_size, subset_seed=subset_seed))
            tested, stopwatch = rows.get("test", rows["validation"]), Stopwatch()
            predictions = task.baseline(rows["train"], tested)
            seconds.append(stopwatch.seconds)
            figures.append(_figure(task, arguments.metric, tested, predictions))
        budgets.append(
            {
                "train_size": len(rows["train"]),
                arguments.metric: bootstrap_mean(figures).interval(),
                "seconds": statistics.fmean(seconds),
                "subset_seeds": list(subset_seeds),
            }
        )
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, budgets[-1])
    return {"name": task.baseline_name, "budgets": budgets}


def _figure(task: Task, metric: str, rows, predictions: list[Any]) -> Bootstrap:
    figures = task.figures(rows, predictions)
    if metric not in figures:
        raise InputError(f"--figure {metric}: not defined on the test data, which has one label only")
    return figures[metric]


def figure_of_runs(task: Task, metric: str, folders: Sequence[Path]) -> Bootstrap:
    """The mean of a figure over several runs on the same test items, from their predictions."""
    figures = []
    for folder in folders:
        lines = _read_lines(folder / PREDICTIONS_FILE)
        rows = {task.reference_column: [line[task.reference_column] for line in lines]}
        figures.append(_figure(task, metric, rows, list(map(task.read_prediction, lines))))
    return bootstrap_mean(figures)


def _compare_cells(task: Task, metric: str, pretrained: Cell, scratch: Cell) -> dict[str, Any]:
    record = read_results(pretrained.folders[0])
    figures, cells = {}, {}
    for variant, cell in ((PRETRAINED, pretrained), (FROM_SCRATCH, scratch)):
        figures[variant] = figure_of_runs(task, metric, cell.folders)
        cells[variant] = _describe_cell(cell, metric, figures[variant].interval())
    return {
        "train_size": record["train_size"],
        "parameters": record["parameters"],
        "split": record["split"],
        "n": record["n"],
        "num_steps": record["num_steps"],
        **cells,
        "gain": figures[PRETRAINED].minus(figures[FROM_SCRATCH]).interval(),
    }


def _describe_cell(cell: Cell, metric: str, figure: Interval) -> dict[str, Any]:
    results = [read_results(folder) for folder in cell.folders]
    names = [name for name in results[0]["metrics"] if not name.startswith("f1_")]  # of single labels
    by_seed = {name: [result["metrics"][name]["value"] for result in results] for name in names}
    return {
        metric: figure,
        "by_seed": by_seed,
        "means": {name: statistics.fmean(values) for name, values in by_seed.items()},
        "learning_rate": results[0]["arguments"]["learning_rate"],
        "learning_rates_tried": cell.tried,
        "seconds": statistics.fmean(result["seconds"] for result in results),
        "num_steps": sum(result["num_steps"] for result in results),
        "folders": [str(folder) for folder in cell.folders],
    }


def _examples(task: Task, arguments: FinetuneArguments, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Test items on which the encoders, at the smallest budget, differ most or are wrong, with every answer."""
    folders = {row["name"]: Path(row["budgets"][0][PRETRAINED]["folders"][0]) for row in rows}
    answers = {name: _read_lines(folder / PREDICTIONS_FILE) for name, folder in folders.items()}
    items = []
    for lines in zip(*answers.values(), strict=True):
        line = lines[0]
        cells = {name: task.read_prediction(each).cells() for name, each in zip(answers, lines, strict=True)}
        right = cells_of(line[task.reference_column])
        shown = {"caption": task.caption(line), "header": task.header(line)}
        items.append({**shown, "right": right, "cells": cells})

    def interest(item: dict[str, Any]) -> tuple[int, int]:
        answers_of_item = list(item["cells"].values())
        return len({tuple(cells) for cells in answers_of_item}), sum(c != item["right"] for c in answers_of_item)

    order = sorted(range(len(items)), key=lambda i: interest(items[i]), reverse=True)[:NUM_SHOWN]
    pictures: list[str | None] = [None] * len(order)
    if task.modality.has_thumbnails:
        splits = load_splits(task, arguments)
        tested = splits.get("test", splits["validation"])
        pictures = [task.modality.thumbnail(tested[i]) for i in order]
    return [{**items[i], "picture": picture} for i, picture in zip(order, pictures, strict=True)]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:  # no splitlines: a text may contain other line ends
        return [json.loads(line) for line in file]
