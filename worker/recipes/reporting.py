"""What a training says: messages for the supervisor, and every number for the reports.

Torch-free. Only the first process writes.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.tuning.messages import MESSAGES, FromTraining, Metrics, Note, encode

HISTORY = "history.jsonl"
Tracker = Callable[[int, Mapping[str, float]], object]
METRICS_SECONDS = 0.2
"""Between two lines of metrics of ordinary steps; an evaluation's are always sent."""


class Reporter:
    """``messages.jsonl`` gets what a watcher needs, ``history.jsonl`` the numbers of every step."""

    def __init__(
        self, folder: Path, *, main: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._main, self._clock = folder, main, clock
        self._sent_at = float("-inf")
        self._trackers: list[Tracker] = []

    def add_tracker(self, tracker: Tracker) -> None:
        """Hears the numbers of every step."""
        self._trackers.append(tracker)

    def send(self, message: FromTraining) -> None:
        """One line, in one write, so that a reader never sees half of one for long."""
        if self._main:
            _append(self._folder / MESSAGES, encode(message))

    def note(self, text: str, level: str = "info") -> None:
        self.send(Note(text, level))

    def metrics(
        self, step: int, epoch: float, values: Mapping[str, float], *, now: bool = False
    ) -> None:
        """Keeps the numbers of a step; sends them when the last are old enough, or ``now``."""
        if not self._main:
            return
        finite = {name: float(value) for name, value in values.items()}
        line = json.dumps({"step": step, "epoch": round(epoch, 4), **finite})
        _append(self._folder / HISTORY, line.encode() + b"\n")
        for tracker in list(self._trackers):
            self._tell(tracker, step, finite)
        if now or self._clock() - self._sent_at >= METRICS_SECONDS:
            self._sent_at = self._clock()
            self.send(Metrics(step, _sendable(finite), round(epoch, 4)))

    def _tell(self, tracker: Tracker, step: int, values: Mapping[str, float]) -> None:
        """A tracker that fails is told nothing more; the training goes on."""
        try:
            tracker(step, values)
        except Exception as error:
            self._trackers.remove(tracker)
            self.note(f"a tracker failed and hears nothing more: {type(error).__name__}", "warn")

    def restore(self, history: Path, step: int) -> None:
        """Begins from a checkpoint's history: what it has of later steps is forgotten."""
        if not self._main:
            return
        kept = [row for row in read_history(history) if row["step"] <= step]
        lines = "".join(json.dumps(row) + "\n" for row in kept)
        (self._folder / HISTORY).write_text(lines, encoding="utf-8")

    @property
    def history(self) -> Path:
        return self._folder / HISTORY


def read_history(path: Path) -> list[dict[str, Any]]:
    """All numbers so far, a dictionary for each time some were measured; steps may repeat."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


def by_step(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One dictionary for each step, in order."""
    merged: dict[int, dict[str, Any]] = {}
    for row in history:
        merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def write_csv(history: list[dict[str, Any]], path: Path) -> None:
    """``metrics.csv``: a line for each step, a column for each name."""
    rows = by_step(history)
    names = list(dict.fromkeys(["step", "epoch", *(name for row in rows for name in row)]))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _sendable(values: Mapping[str, float]) -> dict[str, float]:
    """JSON has no infinity: a number that left the range says so by its absence."""
    return {name: value for name, value in values.items() if abs(value) < float("inf")}


def _append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
