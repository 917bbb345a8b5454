"""What a training says while it runs: one line now and then, with the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[str], None]
"""Told one line of progress."""

_REPORT_SECONDS = 15.0
_MINUTE, _HOUR = 60, 3600


def in_words(seconds: float) -> str:
    """A span for people: ``42 s``, ``7 min 5 s``, ``1 h 12 min``."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


class Progress:
    """Reports step, loss and time left, at most once in ``every_seconds``."""

    def __init__(
        self,
        name: str,
        steps: int,
        report: Report,
        *,
        clock: Callable[[], float] = time.monotonic,
        every_seconds: float = _REPORT_SECONDS,
    ) -> None:
        self._name, self._steps, self._report = name, steps, report
        self._clock, self._every_seconds = clock, every_seconds
        self._began = self._last = clock()
        self._done = 0
        self._losses: list[float] = []

    def add(self, step: int, loss: float) -> None:
        """Step ``step`` (from 1) is done; lines show the mean loss since the line before."""
        self._done += 1
        self._losses.append(loss)
        now = self._clock()
        if now - self._last < self._every_seconds and step < self._steps:
            return
        left = (now - self._began) / self._done * (self._steps - step)
        mean = sum(self._losses) / len(self._losses)
        self._report(
            f"{self._name}: step {step} of {self._steps}, loss {mean:.4f}, {in_words(left)} left"
        )
        self._losses.clear()
        self._last = now
