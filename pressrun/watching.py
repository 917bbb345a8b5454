"""Following a batch or a job to its end: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pressrun.api_client import ApiClient, Json
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal

TERMINAL_BATCH = frozenset({"completed", "failed", "expired", "cancelled"})
TERMINAL_JOB = frozenset({"succeeded", "failed", "expired", "cancelled"})
PATIENCE_SECONDS = 120.0
"""How long a watch outlives the server's absence."""
SHORTEST_POLL_SECONDS = 0.5
LONGEST_POLL_SECONDS = 5.0
LONG_POLL_SECONDS = 20
PLAIN_LINE_SECONDS = 5.0
LONGEST_SILENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a batch, a campaign or a training is. ``total`` is 0 until it is known."""

    status: str
    completed: int
    failed: int
    total: int
    unit: str = "rows"
    remark: str | None = None
    """What to tell instead of how many failed."""
    eta_seconds: float | None = None
    """What the server says; None: judged by what was done while watching, if it is rows."""

    @property
    def aside(self) -> str:
        return f"{self.failed} failed" if self.remark is None else self.remark

    @property
    def done(self) -> int:
        return self.completed + self.failed


class Display(Protocol):
    """Where snapshots are shown; entered for the time of the watch."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def show(self, snapshot: Snapshot) -> None: ...


def snapshot_of(batch: Json) -> Snapshot:
    counts = batch.get("request_counts") or {}
    completed, failed, total = (counts.get(name) or 0 for name in ("completed", "failed", "total"))
    return Snapshot(str(batch["status"]), completed, failed, total)


def watch_batch(client: ApiClient, batch_id: str, display: Display) -> Json:
    """Polls until the batch is terminal, then returns it. Raises CommandError.

    Ctrl-C becomes a CommandError that says that the batch goes on.
    """
    return poll(client, Watched("batch", batch_id, TERMINAL_BATCH, snapshot_of), display)


@dataclass(frozen=True, slots=True)
class Watched:
    """An object with a ``status``, and how to show it."""

    kind: str
    id: str
    terminal: Container[str]
    snapshot: Callable[[Json], Snapshot]
    path: str = "/v1/batches"


def poll(client: ApiClient, watched: Watched, display: Display) -> Json:
    """Shows the object until its status is terminal, then returns it. Raises CommandError."""
    began = time.monotonic()
    try:
        with display:
            while True:
                found = client.get(
                    f"{watched.path}/{watched.id}", patience_seconds=PATIENCE_SECONDS
                )
                display.show(watched.snapshot(found))
                if found["status"] in watched.terminal:
                    return found
                elapsed = time.monotonic() - began
                time.sleep(min(max(elapsed / 20, SHORTEST_POLL_SECONDS), LONGEST_POLL_SECONDS))
    except KeyboardInterrupt:
        raise interrupted(watched.kind, watched.id) from None


def interrupted(kind: str, object_id: str) -> CommandError:
    """What Ctrl-C during a watch becomes."""
    return CommandError(
        f"stopped watching; the {kind} goes on: pressrun {kind} watch {object_id}",
        ExitCode.INTERRUPTED,
    )


def display_for(terminal: Terminal) -> Display:
    """The display that fits the terminal, or its absence."""
    if terminal.json_only:
        return SilentDisplay()
    return LiveDisplay(terminal) if terminal.err.is_terminal else PlainDisplay(terminal)


class SilentDisplay:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def show(self, snapshot: Snapshot) -> None: ...


class LiveDisplay:
    """A bar with rows done, rows failed, elapsed time and the time it still takes."""

    def __init__(self, terminal: Terminal) -> None:
        columns: list[Any] = [
            SpinnerColumn(),
            TextColumn("{task.description:<11}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}{task.fields[aside]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            _RemainingColumn(),
        ]
        self._progress = Progress(*columns, console=terminal.err)
        self._task = self._progress.add_task(
            "submitted", total=None, aside="", unit="", eta_seconds=None
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._progress.update(
            self._task,
            description=snapshot.status,
            completed=snapshot.done,
            total=snapshot.total or None,
            unit=snapshot.unit,
            aside=f", {snapshot.aside}" if snapshot.aside else "",
            eta_seconds=snapshot.eta_seconds,
        )


class _RemainingColumn(TimeRemainingColumn):
    """What the server says, where it says something."""

    def render(self, task: Task) -> Text:
        seconds = task.fields["eta_seconds"]
        if seconds is None:
            return super().render(task)
        return Text(str(timedelta(seconds=round(seconds))), style="progress.remaining")


class PlainDisplay:
    """A line when the status changes, every five seconds while something gets done, and every
    thirty while nothing seems to."""

    def __init__(self, terminal: Terminal, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal
        self._clock = clock
        self._began = clock()
        self._shown: Snapshot | None = None
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        shown, now = self._shown, self._clock()
        same_status = shown is not None and shown.status == snapshot.status
        pause = LONGEST_SILENCE_SECONDS if snapshot == shown else PLAIN_LINE_SECONDS
        if same_status and now - self._shown_at < pause:
            return
        self._shown, self._shown_at = snapshot, now
        self._terminal.note(plain_line(snapshot, now - self._began))


def plain_line(snapshot: Snapshot, elapsed: float) -> str:
    """``in_progress: 12/24 rows, 0 failed, 3 s, ETA 3 s``"""
    done = f"{snapshot.done}/{snapshot.total} {snapshot.unit}"
    line = ", ".join(filter(None, [f"{snapshot.status}: {done}", snapshot.aside]))
    line += f", {elapsed:.0f} s"
    left = snapshot.eta_seconds
    if left is None and snapshot.remark is None and 0 < snapshot.done < snapshot.total:
        left = elapsed * (snapshot.total - snapshot.done) / snapshot.done
    return line if left is None else f"{line}, ETA {left:.0f} s"
