"""The interface of an engine inside its child process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from worker.engines.protocol import Row, RowDelta, RowProgress, RowResult

OnProgress = Callable[[float, str], None]
"""Told (fraction 0..1, what is going on) while a model loads."""


class EngineFailed(Exception):
    """The engine cannot go on: its process must be replaced. ``code`` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Engine(Protocol):
    """A loaded model that generates.

    The host calls it from one thread: ``submit`` and ``cancel`` between steps, ``step`` as long as
    ``busy``. A step is one bounded unit of work (a decoding step, a microbatch of embeddings), so
    a cancel takes effect within one step. A row that fails becomes a ``RowResult`` with an error
    body; raising from ``step`` condemns the whole process.
    """

    @property
    def capacity(self) -> int:
        """How many rows it wants to hold at once, running and waiting."""

    @property
    def resident_bytes(self) -> int:
        """Memory held by weights and caches."""

    @property
    def detail(self) -> dict[str, Any]:
        """What was chosen: device, dtype, scheduler, slots."""

    @property
    def busy(self) -> bool:
        """Whether any row is running or waiting."""

    @property
    def active_rows(self) -> int: ...

    @property
    def waiting_rows(self) -> int: ...

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        """Takes a row; returns its result at once when it can't be run (bad prompt)."""

    def cancel(self, shard: int, epoch: int) -> None:
        """Forgets the shard's unfinished rows."""

    def step(self) -> list[RowResult]:
        """Does one unit of work and returns the rows that it finished."""


@runtime_checkable
class ReportsProgress(Protocol):
    """An engine whose rows take many steps and can say how far they are."""

    def progress(self) -> list[RowProgress]:
        """What changed since the last call; the host asks after each step, and sends each row's
        first report at once, later ones at most four times a second, previews always."""


@runtime_checkable
class TellsText(Protocol):
    """An engine whose rows may be read along while they generate."""

    def deltas(self) -> list[RowDelta]:
        """What rows with ``stream: true`` said since the last call; the host asks after each step
        and sends all of it, so the engine paces itself."""
