"""Predict with a fine-tuned checkpoint, and score it on labelled data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.finetuning import CONFUSION_FILE, SEEN_FILE, Collate, write_confusion
from tasks.task import Task
from toolkit.hub.download import local_copy
from toolkit.runs.results import Stopwatch, write_score

PREDICTION_BATCH_SIZE = 128


def predict(task: Task, model, processor, encoded, accelerator, batch_size: int = PREDICTION_BATCH_SIZE) -> list[Any]:
    """One prediction per row of data, in order, the same on all processes.

    Args:
        task: The task.
        model: The model, in evaluation mode.
        processor: Its processor.
        encoded: Encoded rows; a row may be encoded in several parts.
        accelerator: The processes that share the work.
        batch_size: Encoded rows per batch.
    """
    import torch

    from toolkit.training.distributed import gather_objects
    from toolkit.training.evaluation import evaluation_batches

    collate = Collate(task, processor)
    if (lengths := task.lengths(encoded)) is not None:
        encoded = encoded.select(sorted(range(len(lengths)), key=lengths.__getitem__))  # little padding

    def collate_with_rows(rows: list[dict], keys) -> dict[str, Any]:
        return {**collate(rows, keys), "rows": rows}

    mine = []
    with torch.inference_mode():
        for batch in evaluation_batches(encoded, collate_with_rows, batch_size, accelerator, lockstep=True):
            rows = batch.pop("rows")
            inputs = {name: batch[name] for name in batch if name not in ("labels", "num_targets", "num_items")}
            outputs = task.forward(model, inputs)
            if batch["num_items"]:
                predictions = task.decode(rows, outputs, model)
                mine += [(row["index"], row["part"], p) for row, p in zip(rows, predictions, strict=True)]
    parts: dict[int, list[Any]] = {}
    for index, _, prediction in sorted(gather_objects(accelerator, mine), key=lambda found: found[:2]):
        parts.setdefault(index, []).append(prediction)
    return [task.join(parts[index]) for index in sorted(parts)]


def load_predictor(task: Task, folder: str) -> Callable[[Any], list[Any]]:
    """A function from rows to predictions, of a fine-tuned checkpoint. Raises `InputError`."""
    from toolkit.training.distributed import make_accelerator

    accelerator = make_accelerator()
    model, processor = task.load_finetuned(folder)
    model.to(accelerator.device).eval()

    def predictor(rows) -> list[Any]:
        return predict(task, model, processor, task.encode(rows, processor, model), accelerator)

    return predictor


def score(task: Task, folder: str, data: str, split: str | None, columns: Any, output_file: Path) -> dict[str, Any]:
    """Score a fine-tuned checkpoint on labelled data.

    Args:
        task: The task of the checkpoint.
        folder: Folder or Hub id of the checkpoint.
        data: Labelled data.
        split: Split of a folder or Hub data set (default: test).
        columns: Which columns hold what.
        output_file: Where the record is written to.

    Returns:
        The record.
    """
    from toolkit.training.distributed import make_accelerator

    accelerator, stopwatch = make_accelerator(), Stopwatch()
    model, processor = task.load_finetuned(folder)
    if split is None:
        splits = task.splits(data)
        split = "test" if "test" in splits or not splits else splits[-1]
    rows = task.load(data, split, columns)
    seen_file = local_copy(folder) / SEEN_FILE
    seen = set(seen_file.read_text(encoding="utf-8").split("\n")) if seen_file.is_file() else None
    model.to(accelerator.device).eval()
    predictions = predict(task, model, processor, task.encode(rows, processor, model), accelerator)
    figures = task.figures(task.references(rows), predictions, rows, seen)
    if accelerator.is_main_process:
        picture = output_file.with_name(f"{output_file.stem}_{CONFUSION_FILE}")
        write_confusion(task, picture, rows, predictions)
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
    )
