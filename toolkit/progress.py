"""Progress of a run: a bar on a terminal, plain lines elsewhere, both with rate and time left. On stderr."""

import sys
import time


class Progress:
    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, max_steps: int | None, max_minutes: float | None, enabled: bool = True):
        self.max_steps, self.max_minutes = max_steps, max_minutes
        self.enabled = enabled
        self.on_terminal = sys.stderr.isatty()
        self._bar = None
        self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        if self.enabled and self.on_terminal:
            from tqdm import tqdm

            by_steps = self.max_steps is not None and self.max_minutes is None
            self._bar = tqdm(
                total=self.max_steps if by_steps else round(60 * (self.max_minutes or 0)),
                unit="step" if by_steps else "s",
                leave=False,
                dynamic_ncols=True,
            )
            self._by_steps = by_steps
        return self

    def __exit__(self, *exception) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, step: int, seconds: float) -> None:
        self._step, self._seconds = step, seconds
        if self._bar is not None:
            self._bar.n = min(step if self._by_steps else round(seconds), self._bar.total)
            self._bar.refresh()

    def show(self, step: int, figures: dict[str, float]) -> None:
        """Show the newest figures; outside a terminal not more often than every ten seconds."""
        if not self.enabled:
            return
        words = [f"{name} {_rounded(value)}" for name, value in figures.items() if name not in ("seconds", "epoch")]
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(words))
        elif time.monotonic() - self._last_line >= self.SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            of = f" of {self.max_steps}" if self.max_steps else ""
            print(f"  step {step}{of}, {', '.join(words)}, {self._time_left()} left", file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        shares = [self._step / self.max_steps] if self.max_steps else []
        shares += [self._seconds / (60 * self.max_minutes)] if self.max_minutes else []
        left = self._seconds * (1 / max(shares) - 1)
        return f"{int(left // 60)}:{int(left % 60):02d}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
