"""Predict with a fine-tuned checkpoint, and score it on labelled data."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.task import SearchArguments, Task
from toolkit.hub.download import local_copy
from toolkit.runs.confusion import write_confusion_matrix
from toolkit.runs.results import PREDICTIONS_FILE, Stopwatch, write_score

BATCH_SIZE = 128
SEEN_FILE = "seen_in_training.txt"
CONFUSION_FILE = "confusion_matrix.png"


def predict(task: Task, model, processor, encoded, accelerator, while_training: bool = False) -> list[Any]:
    """One prediction per row of data, in order, the same on all processes; a row may be encoded in several parts."""
    import torch
    from accelerate.utils import gather_object

    from toolkit.training.evaluation import evaluation_batches

    collate = partial(task.collate, processor=processor, arguments=None)
    if (lengths := task.lengths(encoded)) is not None:
        encoded = [encoded[index] for index in sorted(range(len(lengths)), key=lengths.__getitem__)]  # little padding

    mine = []
    with torch.inference_mode():
        for batch in evaluation_batches(encoded, collate, BATCH_SIZE, accelerator, lockstep=True, with_samples=True):
            rows, num_items = batch.pop("samples"), batch.pop("num_items")
            inputs = {name: batch[name] for name in batch if name not in ("labels", "num_targets")}
            outputs = task.forward(model, inputs, while_training)
            if num_items:
                predictions = task.decode(rows, outputs, model, processor)
                mine += [(row["index"], row["part"], p) for row, p in zip(rows, predictions, strict=True)]
    parts: dict[int, list[Any]] = {}
    for index, _, prediction in sorted(gather_object(mine), key=lambda found: found[:2]):
        parts.setdefault(index, []).append(prediction)
    return [found[0] if len(found) == 1 else task.join(found) for found in parts.values()]


def prediction_line(task: Task, row: dict[str, Any], prediction: Any) -> dict[str, Any]:
    """A line of `predictions.jsonl`: the row, the prediction, and the reference if there is one."""
    column = task.reference_column
    return {**task.describe(row), **prediction.as_json(), **({column: row[column]} if column in row else {})}


def write_predictions(task: Task, folder: Path, rows, predictions: list[Any], with_picture: bool) -> None:
    """Write one line of JSON per row and, if the task has one, draw the confusion matrix."""
    with open(folder / PREDICTIONS_FILE, "w", encoding="utf-8") as file:
        for row, prediction in zip(rows, predictions, strict=True):
            print(json.dumps(prediction_line(task, row, prediction), ensure_ascii=False), file=file)
    if with_picture and (answers := task.confusion(rows, predictions)) is not None:
        write_confusion_matrix(folder / CONFUSION_FILE, *answers)


class Predictor:
    """A fine-tuned checkpoint as a function from rows to predictions. Raises `InputError` if it cannot be loaded."""

    def __init__(self, task: Task, folder: str, search: SearchArguments | None = None):
        from toolkit.training.distributed import make_accelerator

        self.task, self.accelerator = task, make_accelerator()
        self.model, self.processor = task.load_finetuned(folder)
        task.set_search(self.model, search or SearchArguments())
        self.model.to(self.accelerator.device).eval()

    def read(self, inputs: Sequence[str | Path], skip_broken: bool = False):
        """The rows of texts and files. Raises `InputError` for one that cannot be read, unless it may be skipped."""
        rows = self.task.read_inputs(inputs, skip_broken, self.model.config)
        return self.task.select_known(rows, self.processor, self.model.config, skip_broken)

    def __call__(self, rows) -> list[Any]:
        encoded = self.task.encode(rows, self.processor, self.model)
        return predict(self.task, self.model, self.processor, encoded, self.accelerator)


def score(
    task: Task,
    folder: str,
    data: str,
    split: str | None,
    columns: Any,
    output_file: Path,
    search: SearchArguments | None = None,
) -> dict[str, Any]:
    """Score a fine-tuned checkpoint on a split of labelled data (default: test), and write the record.

    Raises `InputError` if the checkpoint or the data cannot be used.
    """
    from toolkit.training.distributed import make_accelerator

    accelerator, stopwatch = make_accelerator(), Stopwatch()
    model, processor = task.load_finetuned(folder)
    task.set_search(model, search or SearchArguments())
    source = task.open(data, task.columns_of(columns, model.config))
    if split is None:
        split = "test" if "test" in source.splits or not source.splits else source.splits[-1]
    rows = source.load(split)
    source.summary.add(split, rows, task.counted(rows))
    if accelerator.is_main_process:
        source.summary.say()
    seen_file = local_copy(folder) / SEEN_FILE
    seen = set(seen_file.read_text(encoding="utf-8").split("\n")) if seen_file.is_file() else None
    model.to(accelerator.device).eval()
    predictions = predict(task, model, processor, task.encode(rows, processor, model), accelerator)
    figures = task.figures(rows, predictions, seen)
    if accelerator.is_main_process and (answers := task.confusion(rows, predictions)) is not None:
        write_confusion_matrix(output_file.with_name(f"{output_file.stem}_{CONFUSION_FILE}"), *answers)
    return write_score(
        output_file,
        stopwatch,
        is_main=accelerator.is_main_process,
        task=task.name,
        modality=task.modality_name,
        dataset=data,
        split=split,
        n=len(rows),
        metrics={name: figure.interval() for name, figure in figures.items()},
        encoder=folder,
        parameters=model.num_parameters(),
        data=source.summary.as_json(),
    )
