"""What all methods of pretraining share: processes, output folder, training with evaluation, and the record."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.data.rows import spread
from toolkit.data.sources import SAMPLE
from toolkit.data.summary import DataSummary
from toolkit.errors import InputError
from toolkit.modalities import MODALITIES
from toolkit.models.families import Preset, family_of_preset, presets
from toolkit.runs.arguments import to_flags
from toolkit.runs.output import check_output_dir, create_output_dir
from toolkit.runs.results import RESULTS_FILE, Stopwatch, write_results
from toolkit.training.inputs import Evaluation, TrainingData, TrainingOutput

# A launcher (torchrun, accelerate, MPI) sets one of these variables in every process that it starts.
LAUNCHER_VARIABLES = {"WORLD_SIZE", "MASTER_ADDR", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}
VALIDATION_ROWS = 256  # evaluated while training; the figures in results.json are of up to eight times as many
VALIDATION_BATCH_SIZE = 16


class Run:
    """One run of a method: its arguments and flags, the preset, the processes and the output folder.

    Torch is imported only when it is needed, unless a launcher started this process: then a fault of the launcher is
    reported before anything else is done.

    Args:
        arguments: Arguments of the method, with the groups `encoder` and `output`.
        choices: Presets that the method can train (default: those of the family of the same name).
        resume: Whether the run continues an earlier one (default: the flag `--resume`, if there is one).

    Raises:
        InputError: The preset is unknown, the output folder cannot take the run, or the launcher did not start all
            processes.
    """

    def __init__(
        self, method: str, arguments: Any, choices: Mapping[str, Preset] | None = None, resume: bool | None = None
    ):
        self.method, self.arguments, self.flags = method, arguments, to_flags(arguments)
        name, choices = arguments.encoder.preset, choices or presets(family=method)
        if name not in choices:
            raise InputError(f"unknown preset '{name}', expected one of {', '.join(choices)}")
        self.preset, self.family = choices[name], family_of_preset(name)
        self.modality = self.family.modality  # of the data; an image encoder may also learn from recordings
        self.resume = self.flags.get("resume") if resume is None else resume
        self.output_dir = check_output_dir(arguments.output, self.resume)
        self.has_launcher = not LAUNCHER_VARIABLES.isdisjoint(os.environ)
        self.is_main = not self.has_launcher or self.accelerator.is_main_process
        self.stopwatch = Stopwatch()
        self.data: dict[str, Any] = {}  # what `results.json` says of the data
        self.content: dict[str, str] = {}  # a hash of each split

    @cached_property
    def accelerator(self):
        from toolkit.training.distributed import make_accelerator

        return make_accelerator()

    def main_process_first(self) -> AbstractContextManager:
        """The other processes wait for the main process; a process that is alone needs no accelerator for that."""
        return self.accelerator.main_process_first() if self.has_launcher else nullcontext()

    def say(self, *messages: str) -> None:
        """Print lines on stderr, on the main process."""
        for message in messages if self.is_main else ():
            print(f"{self.method}: {message}", file=sys.stderr, flush=True)

    def describe_data(self, summary: DataSummary) -> None:
        """Say what the data holds and what was left out, and keep it for the record."""
        self.data |= summary.as_json()
        self.content |= summary.content
        self.say(*summary.lines())

    def create_output_dir(self, checks_data: bool = True) -> Path:
        """Create the output folder, on the main process, once nothing can be wrong with the input.

        Raises `InputError` if a resumed run had other data, unless `checks_data` is false.
        """
        if self.is_main:
            create_output_dir(self.arguments.output, self.resume, self.content if checks_data else None)
        return self.output_dir


def train_and_record(
    run: Run,
    model,
    processor,
    rows: tuple[Any, Any],
    collate,
    eval_collate,
    *,
    item: str,
    row: str = "window",
    better: str | None = "loss",
    consecutive: int = 1,
    export: Callable[[Any], Any] | None = None,
    is_right: Callable[[Any, Any], Any] | None = None,
) -> dict[str, Any]:
    """Train a model, evaluate the best weights (or the last ones) on held-out data and write the record.

    Args:
        model: A `PreTrainedModel` with its pretraining head.
        rows: Training and held-out data.
        collate: Makes training batches.
        eval_collate: Makes held-out batches, without augmentation or sampling.
        item: What throughput counts: token, word, image or recording.
        row: What messages call a row of the data.
        better: Metric by which the best weights are kept; None keeps the last weights.
        consecutive: As for `toolkit.training.inputs.TrainingData`.
        export: From the trained model to the encoder that is kept (default: the whole model).
        is_right: As for `held_out_accuracy`, to measure the accuracy too.
    """
    from toolkit.metrics.intervals import ratio_interval
    from toolkit.training.checkpoints import save_model
    from toolkit.training.evaluation import held_out_loss, held_out_losses
    from toolkit.training.loop import train

    train_rows, validation_rows = rows

    def evaluate(accelerator) -> dict[str, float]:
        some = spread(validation_rows, VALIDATION_ROWS)
        return {"loss": held_out_loss(model, some, eval_collate, VALIDATION_BATCH_SIZE, accelerator)}

    weights = "" if export is None else "whole"  # a folder that is deleted once the record is written
    output = TrainingOutput(run.output_dir, processor, weights)
    size = f"{model.num_parameters():,} parameters, {len(train_rows):,} {row}s"
    run.say(f"training {run.arguments.encoder.preset}, {size}")
    data = TrainingData(train_rows, collate, consecutive=consecutive, item=item)
    result = train(model, data, run.arguments.training, output, Evaluation(evaluate, better))
    loss_function = getattr(model, "_loss_function", None)  # with label smoothing, for example, as in the log
    model = type(model).from_pretrained(output.weights_dir).to(run.accelerator.device).eval()
    if loss_function is not None:
        model.loss_function = loss_function
    held_out = model, validation_rows, eval_collate, VALIDATION_BATCH_SIZE, run.accelerator
    sums, counts = held_out_losses(*held_out)
    metrics = {"loss": ratio_interval(sums, counts)}
    if is_right is not None:
        metrics["accuracy"] = held_out_accuracy(*held_out, is_right)
    if export is not None:
        model = export(model)
        save_model(run.output_dir, model, processor, writes=run.is_main)
    record = write_record(run, model, metrics, int(counts.sum()), item, **asdict(result))
    if export is not None and run.is_main:
        shutil.rmtree(output.weights_dir)
    return record


def held_out_accuracy(model, rows, collate, batch_size: int, accelerator, is_right) -> dict[str, float]:
    """The fraction of right predictions with its interval, the same on all processes.

    `is_right(logits, batch)` is a bool tensor (units, predictions); the bootstrap resamples units.
    """
    import torch
    from accelerate.utils import gather_object

    from toolkit.metrics.intervals import ratio_interval
    from toolkit.training.evaluation import evaluation_batches

    hits: list[tuple[int, int]] = []
    with torch.no_grad():
        for batch in evaluation_batches(rows, collate, batch_size, accelerator, lockstep=True):
            right = is_right(model(pixel_values=batch["pixel_values"]).logits, batch)
            if batch["num_items"]:
                hits += [(count, right.shape[1]) for count in right.sum(dim=1).tolist()]
    num_right, totals = zip(*gather_object(hits), strict=True)
    return ratio_interval(num_right, totals)


def write_record(
    run: Run, model, metrics: dict[str, Any], n: int, item: str, num_steps, seconds, throughput, deterministic
) -> dict[str, Any]:
    """Write `results.json` on the main process and return the record.

    `n` is the number of items that the metrics are of; what follows are the fields of a `TrainingResult`.
    """
    record = {
        "task": "pretraining",
        "split": "validation",
        "encoder": run.arguments.encoder.preset,
        "parameters": model.num_parameters(),
        "arguments": run.flags,
        "dataset": run.flags["corpus"],
        "data": run.data,
        "modality": run.modality,
        "metrics": metrics,
        "n": n,
        "seed": run.flags["seed"],
        "num_steps": num_steps,
        "training_seconds": seconds,
        "throughput": throughput,
        "throughput_unit": f"{item}s/s",
        "deterministic": deterministic,
    }
    if run.flags["corpus"] == SAMPLE:
        record["sample_license"] = MODALITIES[run.modality].sample_license
    return write_results(run.output_dir / RESULTS_FILE, run.stopwatch, **record) if run.is_main else record
