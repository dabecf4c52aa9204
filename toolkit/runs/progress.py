"""Progress on stderr: a bar on a terminal, elsewhere a line at most every ten seconds, with the time left."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar


class Progress:
    """Progress of a run that steps, minutes or both limit, as a context manager; shows nothing unless `enabled`.

    `is_shown` is set to False in a process that runs beside others.
    """

    is_shown = True
    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, max_steps: int | None, max_minutes: float | None, enabled: bool = True):
        self.max_steps, self.max_minutes, self.enabled = max_steps, max_minutes, enabled and self.is_shown
        self.step, self.seconds = 0, 0.0
        self._bar: Any = None
        self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        if self.enabled and sys.stderr.isatty():
            from tqdm import tqdm

            total, unit = (round(60 * self.max_minutes), "s") if self.max_minutes else (self.max_steps, "step")
            self._bar = tqdm(total=total, unit=unit, leave=False, dynamic_ncols=True)
        return self

    def __exit__(self, *exception) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, step: int, seconds: float) -> None:
        self.step, self.seconds = step, seconds
        if self._bar is not None:
            self._bar.update(min(int(seconds) if self.max_minutes else step, self._bar.total) - self._bar.n)

    def show(self, figures: dict[str, float]) -> None:
        """Show the newest figures."""
        if not self.enabled:
            return
        words = ", ".join(f"{name} {_rounded(figures[name])}" for name in figures if name not in ("seconds", "epoch"))
        if self._bar is not None:
            self._bar.set_postfix_str(words)
        elif time.monotonic() - self._last_line >= self.SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            of = f" of {self.max_steps}" if self.max_steps else ""
            shares = [self.step / self.max_steps] if self.max_steps else []
            shares += [self.seconds / (60 * self.max_minutes)] if self.max_minutes else []
            left = _clock(self.seconds * (1 / max(shares) - 1))
            print(f"  step {self.step}{of}, {words}, {left} left", file=sys.stderr, flush=True)


T = TypeVar("T")


def with_progress(batches: Iterable[T], num_batches: int, enabled: bool) -> Iterator[T]:
    """Yield the batches and show progress while they are used."""
    start = time.monotonic()
    with Progress(num_batches, None, enabled) as progress:
        for step, batch in enumerate(batches, start=1):
            yield batch
            progress.advance(step, time.monotonic() - start)
            progress.show({"steps_per_second": step / progress.seconds})


class Parts:
    """Progress of work in parts: call it with the number of finished parts and the total number."""

    def __init__(self, name: str, enabled: bool = True):
        self.name, self.enabled = name, enabled
        self._start = self._last_line = time.monotonic()
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if not self.enabled or total < 2:
            return
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = self._bar or tqdm(total=total, desc=self.name, leave=False, dynamic_ncols=True)
            self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.close()
        elif time.monotonic() - self._last_line >= Progress.SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            left = (self._last_line - self._start) * (total / done - 1)
            print(f"  {self.name}: {done / total:.0%}, {_clock(left)} left", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
