"""What ends a run from outside: signals, full disks, processes that are gone."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import DISK_ERRORS, RunFailed, what_failed
from toolkit.training.checkpoints import way_on

SIGNALS = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)]  # the last is SLURM's warning


class Signals:
    """Notes the first of `SIGNALS`, so that the step can be finished. A Ctrl-C after it is obeyed at once."""

    def __init__(self):
        self.number = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in set(SIGNALS)}
        return self

    def _note(self, number: int, frame) -> None:
        self.number = self.number or number
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell had it ignored

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def failures_explained(output_dir: Path) -> Iterator[None]:
    """Turns the end of a disk, of memory, or of a process that this one cannot go on without, into a `RunFailed`."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        is_disk = isinstance(error, OSError) and (error.errno in DISK_ERRORS or not output_dir.is_dir())
        what = "the disk failed" if is_disk else what_failed(error)
        if what is None:
            raise
        details = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise RunFailed(f"{what}; {way_on(output_dir)}{details}") from error
