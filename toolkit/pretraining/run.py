"""What all methods of pretraining share: output folder, training and the record."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.data.rows import spread

# One of these variables is set where a launcher has started the process: torchrun, accelerate, or one of MPI.
OF_LAUNCHERS = {"WORLD_SIZE", "MASTER_ADDR", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}


class Run:
    VALIDATION_ROWS = 256  # looked at in between; the figure in results.json is of up to eight times as many
    VALIDATION_BATCH_SIZE = 16

    def __init__(self, method: str, arguments: Any, resume: bool | None = None):
        from toolkit.reports.results import Stopwatch, check_output_dir

        self.method, self.arguments = method, arguments
        self.resume = getattr(arguments, "resume", resume)
        check_output_dir(arguments.output_dir, self.resume, arguments.overwrite_output_dir)
        self.has_launcher = not OF_LAUNCHERS.isdisjoint(os.environ)
        # What is wrong with a launcher is said before anything is done. Without one torch is loaded when it is needed.
        self.is_main = not self.has_launcher or self.accelerator.is_main_process
        self.stopwatch = Stopwatch()

    @cached_property
    def accelerator(self):
        from toolkit.training.distributed import make_accelerator

        return make_accelerator()

    def main_process_first(self) -> AbstractContextManager:
        """The others wait for it; a process that is alone needs no accelerator for that."""
        return self.accelerator.main_process_first() if self.has_launcher else nullcontext()

    @property
    def starts_anew(self) -> bool:
        """Whether the weights that training starts from are not those of a checkpoint."""
        from toolkit.training.checkpoints import list_checkpoints

        return not (self.resume and list_checkpoints(Path(self.arguments.output_dir)))

    def say(self, message: str) -> None:
        if self.is_main:
            print(f"{self.method}: {message}", file=sys.stderr, flush=True)

    def create_output_dir(self) -> Path:
        from toolkit.reports.results import create_output_dir

        if self.is_main:
            create_output_dir(self.arguments.output_dir, self.arguments.overwrite_output_dir and not self.resume)
        return Path(self.arguments.output_dir)

    def train(
        self,
        model,
        processor,
        train_rows,
        validation_rows,
        collate,
        exact_collate,
        item: str,
        better: str | None = "loss",
        consecutive: int = 1,
        result: Callable | None = None,
        measure: Callable | None = None,
    ) -> dict[str, Any]:
        """Train `model`, score the best weights, or the last, on the held-out text, return the record.

        `item`, `better` and `consecutive` are those of `toolkit.training.loop.train`; `result` gives what of the model
        stays, `measure` its figures on the held-out rows besides the loss.
        """
        from toolkit.metrics.intervals import ratio_interval
        from toolkit.training.checkpoints import save_model
        from toolkit.training.evaluation import held_out_loss, held_out_losses
        from toolkit.training.loop import train

        settings = (exact_collate, self.VALIDATION_BATCH_SIZE)

        def evaluate(accelerator) -> dict[str, float]:
            some = spread(validation_rows, self.VALIDATION_ROWS)
            return {"loss": held_out_loss(model, some, *settings, accelerator)}

        output_dir = Path(self.arguments.output_dir)
        best_dir = output_dir if result is None else output_dir / "whole"  # until the record is written
        what = "images" if item == "image" else "windows"
        self.say(
            f"training {self.arguments.preset}, {model.num_parameters():,} parameters, {len(train_rows):,} {what}"
        )
        training = train(
            model,
            train_rows,
            collate,
            self.arguments,
            output_dir,
            best_dir=best_dir,
            processor=processor,
            evaluate=evaluate,
            better=better,
            item=item,
            consecutive=consecutive,
        )
        model = type(model).from_pretrained(best_dir).to(self.accelerator.device).eval()
        sums, counts = held_out_losses(model, validation_rows, *settings, self.accelerator)
        metrics = {"loss": ratio_interval(sums, counts)} | (measure(model) if measure else {})
        if result is not None:
            model = result(model)
            save_model(output_dir, model, processor, writes=self.is_main)
        record = self.write(
            model,
            metrics=metrics,
            n=int(counts.sum()),
            num_steps=training.num_steps,
            training_seconds=training.seconds,
            throughput=training.throughput,
            throughput_unit=f"{item}s/s",
            deterministic=training.deterministic,
        )
        if result is not None and self.is_main:
            shutil.rmtree(best_dir)
        return record

    def write(self, model, **fields: Any) -> dict[str, Any]:
        from toolkit.reports.results import RESULTS_FILE, write_results

        record = {
            "task": "pretraining",
            "dataset": self.arguments.corpus,
            "split": "validation",
            "encoder": self.arguments.preset,
            "seed": self.arguments.seed,
            "parameters": model.num_parameters(),
            "arguments": dataclasses.asdict(self.arguments),
            **fields,
        }
        if self.is_main:
            record = write_results(Path(self.arguments.output_dir) / RESULTS_FILE, self.stopwatch, **record)
        return record
