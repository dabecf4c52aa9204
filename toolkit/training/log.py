"""What a run reports while it trains: lines of `train_log.jsonl`, a tracker and a progress bar."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator

from toolkit.runs.progress import Progress
from toolkit.runs.results import LOG_FILE
from toolkit.training.arguments import TrainingArguments
from toolkit.training.checkpoints import TrainingState
from toolkit.training.distributed import sum_over_processes
from toolkit.training.schedule import Budget


class TrainingLog(contextlib.AbstractContextManager):
    """Reports metrics, and averages the training loss between two lines of the log.

    Args:
        accelerator: The processes; only the main one writes.
        arguments: Their `report_to` names the tracker.
        budget: Length of the run, for the progress bar.
        folder: Folder of the run; None writes no file.
        state: State of the run; what was logged after it was saved is removed from the file.
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
        self.accelerator, self.arguments, self.folder, self.state = accelerator, arguments, folder, state
        is_main = accelerator.is_main_process
        self.path = folder / LOG_FILE if folder is not None and is_main else Path(os.devnull)
        self.progress_bar = Progress(budget.max_steps, budget.max_minutes, enabled=is_main)
        self.num_items = 0  # since this process began
        self.start_window(state.window_loss if is_main else 0.0, state.window_targets)

    def __enter__(self) -> "TrainingLog":
        if self.path != Path(os.devnull):
            _truncate(self.path, self.state.log_bytes)
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(open(self.path, "a", encoding="utf-8"))
            stack.enter_context(self.progress_bar)
            if self.folder is not None:
                stack.enter_context(_tracker(self.accelerator, self.arguments, self.folder))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._open.close()

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
        self.progress_bar.show(self.state.step, {name: x for name, x in metrics.items() if x is not None})

    def start_window(self, loss_sum: float = 0.0, num_targets: float = 0.0) -> None:
        """Begin a new mean of the training loss and a new measurement of throughput."""
        self._loss_sum, self._targets, self._items = loss_sum, num_targets, 0.0
        self._start = time.monotonic()

    def sync(self) -> int:
        """Flush the file to disk and return its size in bytes."""
        if self.accelerator.is_main_process and self.folder is not None:
            os.fsync(self._file.fileno())
        return self._file.tell()


@contextlib.contextmanager
def _tracker(accelerator: Accelerator, arguments: TrainingArguments, folder: Path) -> Iterator[None]:
    """Start the tracker that `report_to` names, if any; the run is called like its folder."""
    if arguments.report_to is not None:
        os.environ.setdefault("WANDB_MODE", "offline")
        flags = {
            name: value
            for name, value in dataclasses.asdict(arguments).items()
            if isinstance(value, int | float | str)
        }
        name = folder.absolute().name
        project = "tensorboard" if arguments.report_to == "tensorboard" else "toolkit"  # TensorBoard makes it a folder
        options = {"trackio": {"name": name}, "wandb": {"name": name, "dir": str(folder)}}
        accelerator.init_trackers(project, config=flags, init_kwargs=options)
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # `accelerator.end_training` would also destroy the process group
            tracker.finish()


def _truncate(path: Path, size: int) -> None:
    with open(path, "ab") as file:
        file.truncate(min(size, file.tell()))
