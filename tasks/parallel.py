"""Fine-tune several times: one run after the other with all threads, or several at a time with one thread each."""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.finetuning import finetune, load_splits
from tasks.task import FinetuneArguments, Task
from toolkit.corpora.workers import available_cores, map_in_order
from toolkit.data.sources import Source
from toolkit.errors import InputError, Interrupted
from toolkit.runs.progress import Progress

MAX_PROC = 8  # by default: each process needs memory of its own


def default_num_proc() -> int:
    """One process per core, or one in all on a GPU, which a run has for itself, or with a launcher."""
    return min(available_cores(), MAX_PROC) if _is_alone_on_cpu() else 1


def check_num_proc(num_proc: int) -> None:
    """Raises `InputError` if runs cannot be trained in several processes."""
    if num_proc > 1 and not _is_alone_on_cpu():
        raise InputError(f"--num_proc {num_proc}: expected 1 on a GPU or with a launcher")


def _is_alone_on_cpu() -> bool:
    from toolkit.training.distributed import make_accelerator

    accelerator = make_accelerator()
    return accelerator.num_processes == 1 and accelerator.device.type == "cpu"


def finetune_in_order(
    task: Task, arguments: Sequence[FinetuneArguments], source: Source, num_proc: int
) -> Iterator[dict[str, Any]]:
    """Fine-tune with each of the arguments on the same data, `num_proc` runs at a time; yields the records in order.

    Raises:
        Interrupted: A signal arrived; the runs saved checkpoints.
        RunFailed: A process was killed.
    """
    if min(num_proc, len(arguments)) < 2:
        yield from (finetune(task, each, source, with_picture=False) for each in arguments)
        return
    from toolkit.training.signals import raise_interrupted

    load_splits(task, arguments[0], source)  # once, for all processes
    source.summary.say()
    with raise_interrupted("the runs were stopped and saved; go on with the same command and --resume"):
        yield from map_in_order(FinetuneInProcess(task, source), arguments, num_proc)


@dataclass
class FinetuneInProcess:
    """Fine-tunes in one of several processes, with one thread and without a progress bar."""

    task: Task
    source: Source | None

    def __getstate__(self) -> dict[str, Any]:
        return {"task": self.task, "source": None}  # a process that is not forked opens the data itself

    def __call__(self, arguments: FinetuneArguments) -> dict[str, Any]:
        import torch

        torch.set_num_threads(1)  # also because a forked process cannot start more threads of GNU's OpenMP
        Progress.is_shown = False
        try:
            return finetune(self.task, arguments, self.source, with_picture=False)
        except Interrupted:
            signal.raise_signal(signal.SIGTERM)  # ends this process, which would otherwise start the next run
            raise
