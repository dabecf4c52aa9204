"""Compare encoders on a task at several label budgets: each pretrained encoder beside the same network from scratch.

"Scratch" is the same network with random weights, trained for the same steps on the task only. Both learning rates
are chosen from the same short list, on validation data with the first seed. The gain is a paired bootstrap over the
test items, seeds pooled.
"""

import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.finetuning import load_splits
from tasks.parallel import finetune_in_order
from tasks.task import FinetuneArguments, Task
from toolkit.data.sources import Source
from toolkit.errors import InputError
from toolkit.hub.download import local_copy
from toolkit.metrics.intervals import Bootstrap, bootstrap_mean
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
        source: The labelled data, opened, which all runs share.
        encoders: Folders or Hub ids of pretrained encoders, by name.
        train_sizes: Label budgets; None is all labels.
        seeds: Seeds of fine-tuning.
        learning_rates: Short list from which the learning rate is chosen on validation data.
        subset_each_seed: Whether each seed has labelled examples of its own.
        with_baseline: Whether the task's usual method without a network is added.
        num_proc: Number of runs at a time, in processes with one thread each; 1 is one run with all threads.
        say: Called with messages of progress.
    """

    source: Source
    encoders: dict[str, str]
    train_sizes: Sequence[int | None]
    seeds: Sequence[int]
    learning_rates: Sequence[float]
    subset_each_seed: bool = False
    with_baseline: bool = False
    num_proc: int = 1
    say: Callable[[str], Any] = field(default=print)


def compare(task: Task, grid: Grid, arguments: FinetuneArguments) -> dict[str, Any]:
    """Fine-tune every encoder, pretrained and from scratch, at each label budget with each seed.

    All runs share `arguments`. The output folder receives one folder per run and `results.json`; with `resume`,
    finished runs in it are not repeated. Returns the record, which `toolkit.runs.page` draws.
    """
    arguments = arguments.resolved()  # the same for pretrained and scratch, of which only one may be frozen
    stopwatch = Stopwatch()
    baseline = run_baseline(task, grid, arguments) if grid.with_baseline and is_main_process() else None
    cells = _cells(grid, arguments)
    _finetune_cells(task, grid, cells)
    rows = [_row(task, grid, list(of_encoder)) for _, of_encoder in itertools.groupby(cells, lambda cell: cell.name)]
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
        "examples": _examples(task, grid, arguments, rows),
        "deterministic": arguments.training.max_minutes is None,
    }
    results_file = Path(arguments.output.output_dir) / RESULTS_FILE
    return write_results(results_file, stopwatch, **record) if is_main_process() else record


@dataclass(eq=False)
class Cell:
    """A cell of the table: an encoder, pretrained or from scratch, at a label budget.

    Attributes:
        name: Name of the encoder.
        variant: `PRETRAINED` or `FROM_SCRATCH`.
        budget: What the label budget is called.
        arguments: Those that all runs of the cell share; each run has a folder in their output folder.
        tried: The figure on validation data with the first seed, by learning rate.
    """

    name: str
    variant: str
    budget: str
    arguments: FinetuneArguments
    tried: dict[float, float] = field(default_factory=dict)

    @property
    def best_rate(self) -> float:
        return max(self.tried, key=self.tried.__getitem__)

    def folder(self, seed: int, learning_rate: float) -> Path:
        return Path(self.arguments.output.output_dir) / f"seed{seed}-lr{learning_rate:g}"


def _cells(grid: Grid, arguments: FinetuneArguments) -> list[Cell]:
    """All cells, those of one encoder and budget beside each other: pretrained, from scratch."""
    cells = []
    for (name, encoder), train_size in itertools.product(grid.encoders.items(), grid.train_sizes):
        pretrained = with_flags(arguments, encoder=encoder)
        for variant, start in ((PRETRAINED, pretrained), (FROM_SCRATCH, pretrained.from_scratch())):
            folder = Path(arguments.output.output_dir) / name / f"{variant}-{train_size or 'all'}"
            flags = {"train_size": train_size, "output_dir": str(folder)}
            budget = _budget_name(train_size, arguments.data.per_class)
            cells.append(Cell(name, variant, budget, with_flags(start, **flags)))
    return cells


def _budget_name(train_size: int | None, per_class: bool) -> str:
    if train_size is None:
        return "all labels"
    return f"{train_size:,} labels a class" if per_class else f"{train_size:,} labels"


def _finetune_cells(task: Task, grid: Grid, cells: list[Cell]) -> None:
    """One run per cell and seed, all with the learning rate that is best on validation data with the first seed."""
    first_seed, *other_seeds = grid.seeds
    trials = [(cell, first_seed, rate) for cell in cells for rate in grid.learning_rates]
    num_runs = len(trials) + len(cells) * len(other_seeds)
    for (cell, _, rate), record in zip(trials, _finetune_all(task, grid, trials, 0, num_runs), strict=True):
        cell.tried[rate] = record["validation_metrics"][cell.arguments.metric]["value"]
    others = [(cell, seed, cell.best_rate) for cell in cells for seed in other_seeds]
    _finetune_all(task, grid, others, len(trials), num_runs)


def _finetune_all(
    task: Task, grid: Grid, runs: list[tuple[Cell, int, float]], num_done: int, num_runs: int
) -> list[dict[str, Any]]:
    """The records of runs, each of a cell with a seed and a learning rate, in their order."""
    arguments = []
    for cell, seed, rate in runs:
        subset_seed = seed if grid.subset_each_seed else cell.arguments.data.subset_seed
        flags = {"seed": seed, "subset_seed": subset_seed, "learning_rate": rate}
        arguments.append(with_flags(cell.arguments, output_dir=str(cell.folder(seed, rate)), **flags))
    results = finetune_in_order(task, arguments, grid.source, grid.num_proc)
    records: list[dict[str, Any]] = []
    for number, (cell, _, _) in enumerate(runs):
        if number == 0 or cell is not runs[number - 1][0]:
            now = f"{cell.name}, {cell.variant}, {cell.budget}"
            grid.say(f"{num_done + number}/{num_runs} runs done; now {now}")
        records.append(next(results))
    return records


def _row(task: Task, grid: Grid, cells: list[Cell]) -> dict[str, Any]:
    """The row of one encoder, from its cells: cost of pretraining, and at each label budget figures and gain."""
    budgets = []
    for pair in zip(cells[::2], cells[1::2], strict=True):
        found = {cell.variant: _figures(task, grid, cell) for cell in pair}
        (pretrained, figure), (scratch, figure_from_scratch) = found[PRETRAINED], found[FROM_SCRATCH]
        record = read_results(Path(pretrained["folders"][0]))
        budgets.append(
            {
                "name": pair[0].budget,
                **{key: record[key] for key in ("train_size", "parameters", "split", "n", "num_steps")},
                PRETRAINED: pretrained,
                FROM_SCRATCH: scratch,
                "gain": figure.minus(figure_from_scratch).interval(),
            }
        )
    name = cells[0].name
    source = local_copy(grid.encoders[name])
    return {
        "name": name,
        "folder": grid.encoders[name],
        "parameters": budgets[0]["parameters"],
        "pretraining": read_results(source) if (source / RESULTS_FILE).is_file() else None,  # None: from elsewhere
        "budgets": budgets,
    }


def _figures(task: Task, grid: Grid, cell: Cell) -> tuple[dict[str, Any], Bootstrap]:
    """What the record says of the runs of a cell, and the mean of their figure."""
    metric = cell.arguments.metric
    folders = [cell.folder(seed, cell.best_rate) for seed in grid.seeds]
    figure = bootstrap_mean([figure_of_run(task, metric, each) for each in folders])
    results = [read_results(each) for each in folders]
    names = [name for name in results[0]["metrics"] if not name.startswith("f1_")]  # of single labels
    by_seed = {name: [result["metrics"][name]["value"] for result in results] for name in names}
    return {
        metric: figure.interval(),
        "by_seed": by_seed,
        "means": {name: statistics.fmean(values) for name, values in by_seed.items()},
        "learning_rate": cell.best_rate,
        "learning_rates_tried": {f"{rate:g}": value for rate, value in cell.tried.items()},
        "seconds": statistics.fmean(result["seconds"] for result in results),
        "num_steps": sum(result["num_steps"] for result in results),
        "folders": [str(each) for each in folders],
    }, figure


def run_baseline(task: Task, grid: Grid, arguments: FinetuneArguments) -> dict[str, Any]:
    """Run the task's usual method without a network at each label budget; choices of labelled examples are pooled.

    Returns for each budget the figure with its interval, and the seconds of one choice. The result of each budget is
    kept in the output folder, and used again with `resume`.
    """
    subset_seeds = list(grid.seeds) if grid.subset_each_seed else [arguments.data.subset_seed]
    budgets = []
    for train_size in grid.train_sizes:
        file = Path(arguments.output.output_dir) / f"baseline-{train_size or 'all'}.json"
        if arguments.training.resume and file.is_file():  # its flags are checked with those of the runs
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept.get("subset_seeds") == subset_seeds:
                budgets.append(kept)
                continue
        grid.say(f"{task.baseline_name}, {_budget_name(train_size, arguments.data.per_class)}")
        figures, seconds = [], []
        for subset_seed in subset_seeds:
            of_budget = with_flags(arguments, train_size=train_size, subset_seed=subset_seed)
            rows, _ = load_splits(task, of_budget, grid.source)
            tested, stopwatch = rows.get("test", rows["validation"]), Stopwatch()
            predictions = task.baseline(rows["train"], tested)
            seconds.append(stopwatch.seconds)
            figures.append(_figure(task, arguments.metric, tested, predictions))
        budget = {
            "train_size": len(rows["train"]),
            arguments.metric: bootstrap_mean(figures).interval(),
            "seconds": statistics.fmean(seconds),
            "subset_seeds": subset_seeds,
        }
        write_json(file, budget)
        budgets.append(budget)
    return {"name": task.baseline_name, "budgets": budgets}


def _figure(task: Task, metric: str, rows, predictions: list[Any]) -> Bootstrap:
    figures = task.figures(rows, predictions)
    if metric not in figures:
        raise InputError(f"--figure {metric}: not defined on the test data, which has one label only")
    return figures[metric]


def figure_of_run(task: Task, metric: str, folder: Path) -> Bootstrap:
    """The figure of a finished run, from its `predictions.jsonl`."""
    lines = _read_lines(folder / PREDICTIONS_FILE)
    rows = {task.reference_column: [line[task.reference_column] for line in lines]}
    return _figure(task, metric, rows, list(map(task.read_prediction, lines)))


def _examples(
    task: Task, grid: Grid, arguments: FinetuneArguments, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Test items on which the encoders, at the smallest budget, differ most or are wrong, with every answer."""
    folders = {row["name"]: Path(row["budgets"][0][PRETRAINED]["folders"][0]) for row in rows}
    answers = {name: _read_lines(folder / PREDICTIONS_FILE) for name, folder in folders.items()}
    items: list[dict[str, Any]] = []
    for lines in zip(*answers.values(), strict=True):
        shown = {"caption": task.caption(lines[0]), "header": task.header(lines[0])}
        cells = {name: task.read_prediction(line).cells() for name, line in zip(answers, lines, strict=True)}
        items.append({**shown, "right": task.right_cells(lines[0][task.reference_column]), "cells": cells})

    def interest(index: int) -> tuple[int, int]:
        cells = list(items[index]["cells"].values())
        right = items[index]["right"]
        wrong = sum(any(c not in r for c, r in zip(cell, right, strict=True)) for cell in cells)
        return len(set(map(tuple, cells))), wrong

    order = sorted(range(len(items)), key=interest, reverse=True)[:NUM_SHOWN]
    tested = None
    if task.modality.has_thumbnails:
        splits, _ = load_splits(task, arguments, grid.source)
        tested = splits.get("test", splits["validation"])
    return [{**items[i], "picture": task.modality.thumbnail(tested[i]) if tested else None} for i in order]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:  # no splitlines: a text may contain other line ends
        return [json.loads(line) for line in file]
