"""How far measuring is, and whether it is still wanted."""

from __future__ import annotations

import time
from pathlib import Path

from worker.recipes.reporting import Reporter
from worker.tuning.messages import STOP, Progressed, Started, Stopped

TELL_SECONDS = 0.5


class StoppedEarly(Exception):
    """It was asked to stop; what was done so far is dropped."""


class Pace:
    """Counts forward passes; of what comes in microbatches, an example is one."""

    def __init__(self, folder: Path, reporter: Reporter, steps: int) -> None:
        self._stop = folder / STOP
        self._reporter = reporter
        self._steps = max(1, steps)
        self._done = 0.0
        self._told_at = float("-inf")

    @property
    def step(self) -> int:
        return min(self._steps, int(self._done))

    def start(self, engine: str, **detail: object) -> None:
        self._reporter.send(Started(self._steps, detail=detail, engine=engine))

    def tick(self, count: float = 0.0) -> None:
        """``count`` more are done. Raises StoppedEarly when nobody wants the rest."""
        self._done += count
        if self._stop.exists():
            raise StoppedEarly
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            self._reporter.send(Progressed(self.step))

    def stopped(self) -> None:
        """Says that it has stopped."""
        self._reporter.send(Stopped(self.step))
