"""Compare encoders on a task at several label budgets: each pretrained one beside its scratch twin.

A twin is the same network with new weights, trained for the same steps on the task alone. Either's learning rate is
the one of the same short list that does best on validation data with the first seed. The gain is a paired bootstrap
over the test items, seeds pooled.
"""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.base import PREDICTIONS_FILE, FinetuneArguments, Task, finetune, load_splits
from toolkit.hub.download import local_copy
from toolkit.reports.results import RESULTS_FILE, Stopwatch, is_main_process, read_results, write_json, write_results
from toolkit.transfer.encoders import SCRATCH

PRETRAINED, FROM_SCRATCH = "pretrained", "scratch"
NUM_SHOWN = 6  # test items that the report shows beside one another


def compare(
    task: Task,
    encoders: dict[str, str],
    arguments: FinetuneArguments,
    train_sizes: Sequence[int | None],
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    say=print,
    with_baseline: bool = False,
    subset_each_seed: bool = False,
) -> dict[str, Any]:
    """Fine-tune every encoder, by its name and folder, and its twin, at each size with each seed.

    With `subset_each_seed` each seed has its own labelled examples, which are otherwise the same for all. With a
    baseline, the task's usual method without a network learns from the same examples. `arguments` hold what all runs
    share; their `output_dir` receives one folder a run and `results.json`, the record that is returned and that
    `toolkit.reports.page` draws. With their `resume`, runs that an earlier comparison there has finished are not made
    again.
    """
    output_dir = Path(arguments.output_dir)
    arguments = arguments.settled()  # the same for frozen and twin
    figure, stopwatch = task.figure(arguments), Stopwatch()
    runs_a_cell = len(learning_rates) + len(seeds) - 1
    num_runs = len(encoders) * 2 * len(train_sizes) * runs_a_cell
    num_done = 0
    baseline = None
    if with_baseline and is_main_process():
        subset_seeds = seeds if subset_each_seed else None
        baseline = run_baseline(task, arguments, train_sizes, say, subset_seeds, output_dir)
    rows = []
    for name, folder in encoders.items():
        budgets = []
        for train_size in train_sizes:
            cells = {}
            for variant, encoder in ((PRETRAINED, folder), (FROM_SCRATCH, SCRATCH + folder)):
                budget = budget_name(train_size, arguments.per_class)
                say(f"{num_done}/{num_runs} runs done; now {name}, {variant}, {budget}")
                cell_dir = output_dir / name / f"{variant}-{train_size or 'all'}"
                # A frozen twin would be random features: it learns as a whole.
                freeze = arguments.freeze and variant == PRETRAINED
                shared = dataclasses.replace(arguments, encoder=encoder, train_size=train_size, freeze=freeze)
                cells[variant] = _run_cell(task, shared, cell_dir, seeds, learning_rates, subset_each_seed)
                num_done += runs_a_cell
            budgets.append({"name": budget, **_compare_cells(task, figure, **cells)})
        rows.append(
            {
                "name": name,
                "folder": folder,
                "parameters": budgets[0]["parameters"],
                "pretraining": _pretraining(local_copy(folder)),
                "budgets": budgets,
            }
        )
    cells_by_name = {
        f"{row['name']}, {variant}, {budget['name']}": budget[variant]
        for row in rows
        for budget in row["budgets"]
        for variant in (PRETRAINED, FROM_SCRATCH)
    }
    num_steps = sum(cell["num_steps"] for cell in cells_by_name.values())
    record = {
        "task": task.name,
        "dataset": arguments.data,
        "metrics": {name: cell[figure] for name, cell in cells_by_name.items()},
        "encoder": list(encoders.values()),
        "seed": seeds[0],
        "num_steps": num_steps,
        "parameters": sum(row["parameters"] for row in rows),
        "throughput": num_steps / stopwatch.seconds,
        "throughput_unit": "steps/s",
        "split": rows[0]["budgets"][0]["split"],
        "n": rows[0]["budgets"][0]["n"],
        "figure": figure,
        "seeds": list(seeds),
        "subset_each_seed": subset_each_seed,
        "learning_rates": list(learning_rates),
        "encoders": rows,
        "baseline": baseline,
        "examples": _examples(task, arguments, rows),
        "deterministic": arguments.max_minutes is None,
    }
    return write_results(output_dir / RESULTS_FILE, stopwatch, **record) if is_main_process() else record


def budget_name(train_size: int | None, per_class: bool) -> str:
    if train_size is None:
        return "all labels"
    return f"{train_size:,} labels a class" if per_class else f"{train_size:,} labels"


def _pretraining(folder: Path) -> dict[str, Any] | None:
    """The record of the pretraining; None of an encoder from elsewhere."""
    return read_results(folder) if (folder / RESULTS_FILE).is_file() else None


class _Cell(NamedTuple):
    folders: list[Path]  # of the runs, one a seed
    tried: dict[str, float]  # for each learning rate what it reached on validation data


def _run_cell(
    task: Task,
    arguments: FinetuneArguments,
    folder: Path,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    subset_each_seed: bool,
) -> _Cell:
    """One run a seed, all with the learning rate that is best on validation data with the first seed."""

    def run(seed: int, learning_rate: float) -> tuple[float, Path]:
        one = dataclasses.replace(
            arguments,
            seed=seed,
            subset_seed=seed if subset_each_seed else arguments.subset_seed,
            learning_rate=learning_rate,
            output_dir=str(folder / f"seed{seed}-lr{learning_rate:g}"),
        )
        record = finetune(task, one, with_picture=False)
        return record["validation_metrics"][task.figure(one)]["value"], Path(one.output_dir)

    tried = {learning_rate: run(seeds[0], learning_rate) for learning_rate in learning_rates}
    best = max(tried, key=lambda learning_rate: tried[learning_rate][0])
    folders = [tried[best][1], *(run(seed, best)[1] for seed in seeds[1:])]
    return _Cell(folders, {f"{rate:g}": score for rate, (score, _) in tried.items()})


def run_baseline(
    task: Task,
    arguments: FinetuneArguments,
    train_sizes: Sequence[int | None],
    say,
    subset_seeds: Sequence[int] | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """What the task's usual method without a network makes of each label budget: figure and interval, pooled over the
    choices of labelled examples, and seconds of one.

    With a `folder` each is kept there when it is done, and with `arguments.resume` taken from there.
    """
    figure = task.figure(arguments)
    budgets = []
    chosen = list(subset_seeds or [arguments.subset_seed])
    for train_size in train_sizes:
        file = folder and folder / f"baseline-{train_size or 'all'}.json"
        if file and arguments.resume and file.is_file():  # what the runs beside it were made with is checked there
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept.get("subset_seeds") == chosen:
                budgets.append(kept)
                continue
        say(f"{task.baseline_name}, {budget_name(train_size, arguments.per_class)}")
        pooled, seconds = [], []
        for subset_seed in chosen:
            train_rows, validation_rows, test_rows = load_splits(
                task, dataclasses.replace(arguments, train_size=train_size, subset_seed=subset_seed)
            )
            rows, stopwatch = test_rows or validation_rows, Stopwatch()
            predictions = task.baseline(train_rows, rows)
            seconds.append(stopwatch.seconds)
            pooled.append([task.as_json(row, prediction) for row, prediction in zip(rows, predictions, strict=True)])
        measured = task.measure(figure, pooled)
        mean_seconds = statistics.fmean(seconds)
        budgets.append(
            {"train_size": len(train_rows), figure: measured, "seconds": mean_seconds, "subset_seeds": chosen}
        )
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, budgets[-1])
    return {"name": task.baseline_name, "budgets": budgets}


def _compare_cells(task: Task, figure: str, pretrained: _Cell, scratch: _Cell) -> dict[str, Any]:
    record = read_results(pretrained.folders[0])
    lines, cells = {}, {}
    for variant, (folders, tried) in ((PRETRAINED, pretrained), (FROM_SCRATCH, scratch)):
        lines[variant] = [_read_lines(folder / PREDICTIONS_FILE) for folder in folders]
        results = [read_results(folder) for folder in folders]
        names = [name for name in results[0]["metrics"] if not name.startswith("f1_")]  # of labels
        by_seed = {name: [result["metrics"][name]["value"] for result in results] for name in names}
        cells[variant] = {
            figure: task.measure(figure, lines[variant]),
            "by_seed": by_seed,
            "means": {name: statistics.fmean(values) for name, values in by_seed.items()},
            "learning_rate": results[0]["arguments"]["learning_rate"],
            "learning_rates_tried": tried,
            "seconds": statistics.fmean(result["seconds"] for result in results),
            "num_steps": sum(result["num_steps"] for result in results),
            "folders": [str(folder) for folder in folders],
        }
    return {
        "train_size": record["train_size"],
        "parameters": record["parameters"],
        "split": record["split"],
        "n": record["n"],
        "num_steps": record["num_steps"],
        **cells,
        "gain": task.measure(figure, lines[PRETRAINED], lines[FROM_SCRATCH]),
    }


def _examples(task: Task, arguments: FinetuneArguments, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Test items on which the encoders, at the smallest budget, differ most or are wrong: each with every encoder's
    answer, and a picture where it is one."""
    folders = {row["name"]: Path(row["budgets"][0][PRETRAINED]["folders"][0]) for row in rows}
    answers = {name: _read_lines(folder / PREDICTIONS_FILE) for name, folder in folders.items()}
    items = [
        {**lines[0], "predicted": {name: line["predicted"] for name, line in zip(answers, lines, strict=True)}}
        for lines in zip(*answers.values(), strict=True)
    ]
    for item in items:
        for name in ("probabilities", "probability"):
            item.pop(name, None)
    right_name = "label" if "label" in items[0] else "tags"

    def interest(item: dict[str, Any]) -> tuple[int, int]:
        predicted = list(item["predicted"].values())
        return len({json.dumps(answer) for answer in predicted}), sum(p != item[right_name] for p in predicted)

    order = sorted(range(len(items)), key=lambda i: interest(items[i]), reverse=True)[:NUM_SHOWN]

    def tested_rows():
        _, validation_rows, test_rows = load_splits(task, arguments)
        return validation_rows if test_rows is None else test_rows

    pictures = task.pictures(tested_rows, order)
    return [items[i] | ({"picture": pictures[i]} if i in pictures else {}) for i in order]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:  # not splitlines: a text may hold other ends of lines
        return [json.loads(line) for line in file]
