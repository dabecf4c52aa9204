"""What a run reports while it trains: lines of `train_log.jsonl`, a tracker and a progress bar."""

import contextlib
import dataclasses
import json
import os
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from toolkit.runs.progress import Progress
from toolkit.runs.results import LOG_FILE
from toolkit.training.arguments import TrainingArguments
from toolkit.training.checkpoints import TrainingState
from toolkit.training.distributed import sum_over_processes
from toolkit.training.schedule import Budget


class TrainingLog(contextlib.ExitStack):
    """Reports metrics from the main process, and averages the training loss between two lines of the log.

    Without a `folder` it writes no file. What was logged after `state` was saved is removed from the file.
    """

    _loss_sum: torch.Tensor | float  # of this process
    _targets: float
    _items: float

    def __init__(
        self,
        accelerator: Accelerator,
        arguments: TrainingArguments,
        budget: Budget,
        folder: Path | None,
        state: TrainingState,
    ):
        super().__init__()
        self.accelerator, self.arguments, self.folder, self.state = accelerator, arguments, folder, state
        is_main = accelerator.is_main_process
        self.path = folder / LOG_FILE if folder is not None and is_main else None
        self.progress_bar = Progress(budget.max_steps, budget.max_minutes, enabled=is_main)
        self.num_items = 0  # since this process began
        self.start_window(state.window_loss if is_main else 0.0, state.window_targets)

    def __enter__(self) -> "TrainingLog":
        self._file = self.enter_context(open(self.path or os.devnull, "a", encoding="utf-8"))
        if self.path is not None:
            self._file.truncate(min(self.state.log_bytes, self._file.tell()))
            self._file.seek(0, os.SEEK_END)
        self.enter_context(self.progress_bar)
        if self.folder is not None and self.arguments.report_to is not None:
            self._start_tracker(self.folder)
        return self

    def _start_tracker(self, folder: Path) -> None:
        """Start the tracker that `report_to` names; the run is called like its folder."""
        os.environ.setdefault("WANDB_MODE", "offline")
        flags = dataclasses.asdict(self.arguments)
        flags = {name: value for name, value in flags.items() if isinstance(value, int | float | str)}
        name = folder.absolute().name
        project = "tensorboard" if self.arguments.report_to == "tensorboard" else "toolkit"  # becomes a folder there
        options = {"trackio": {"name": name}, "wandb": {"name": name, "dir": str(folder)}}
        self.accelerator.init_trackers(project, config=flags, init_kwargs=options)
        for tracker in self.accelerator.trackers:  # `accelerator.end_training` would also destroy the process group
            self.callback(tracker.finish)

    def add(self, loss_sum: torch.Tensor, num_targets: float, num_items: float) -> None:
        """Count one step: the loss of this process summed over targets, and the totals of all processes."""
        self._loss_sum, self._targets = self._loss_sum + loss_sum, self._targets + num_targets
        self._items += num_items
        self.num_items += int(num_items)

    def loss_sum(self) -> tuple[float, float]:
        """The loss since the window began, summed over the targets of all processes, and the number of targets."""
        return sum_over_processes(self.accelerator, float(self._loss_sum))[0], self._targets

    def mean_loss(self) -> float:
        """The mean loss per target since the window began."""
        loss_sum, num_targets = self.loss_sum()
        return loss_sum / num_targets

    def items_per_second(self) -> float:
        """Items per second since the window began."""
        return self._items / (time.monotonic() - self._start)

    def write(self, **metrics: float | None) -> None:
        """Report metrics of the current step."""
        print(json.dumps({"step": self.state.step, **metrics}), file=self._file, flush=True)
        self.accelerator.log(metrics, step=self.state.step)
        self.progress_bar.show({name: x for name, x in metrics.items() if x is not None})

    def start_window(self, loss_sum: float = 0.0, num_targets: float = 0.0) -> None:
        """Begin a new mean of the training loss and a new measurement of throughput."""
        self._loss_sum, self._targets, self._items = loss_sum, num_targets, 0.0
        self._start = time.monotonic()

    def sync(self) -> int:
        """Flush the file to disk and return its size in bytes."""
        if self.path is not None:
            os.fsync(self._file.fileno())
        return self._file.tell()
