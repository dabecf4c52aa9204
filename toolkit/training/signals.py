"""What ends a run from outside: signals, full disks, lost processes."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import DISK_ERRORS, Interrupted, RunFailed, what_failed
from toolkit.training.checkpoints import how_to_continue

SIGNALS = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)]  # SIGUSR1 is SLURM's warning


class Signals:
    """Notes the first of `SIGNALS`, so that the loop can finish its step. A later Ctrl-C ends the process at once."""

    def __init__(self):
        self.number = 0  # of the signal; 0 if there was none
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in set(SIGNALS)}
        return self

    def _note(self, number: int, frame) -> None:
        self.number = self.number or number
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also if a shell had it ignored

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def raise_interrupted(message: str) -> Iterator[None]:
    """Raise `Interrupted` at the first of `SIGNALS`, for a process that waits for others which train."""

    def interrupt(number: int, frame) -> None:
        raise Interrupted(message, number)

    signals = SIGNALS if threading.current_thread() is threading.main_thread() else []
    previous = {number: signal.signal(number, interrupt) for number in set(signals)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def failures_explained(output_dir: Path | None) -> Iterator[None]:
    """Turn a failed disk, a lack of memory or a lost process into a `RunFailed` that says how to continue."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        is_disk = isinstance(error, OSError) and (
            error.errno in DISK_ERRORS or not (output_dir is None or output_dir.is_dir())
        )
        message = "the disk failed" if is_disk else what_failed(error)
        if message is None:
            raise
        advice = "" if output_dir is None else f"; {how_to_continue(output_dir)}"
        details = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise RunFailed(f"{message}{advice}{details}") from error
