"""How far the rows of single-row shards are, from their engines to the database."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Protocol

from shared.lifecycle.working import Held, RowStep
from worker.engines.protocol import RowProgress
from worker.execution import ShardRun
from worker.spool import BadFile, Spool, Taken

ANNOUNCE_SECONDS = 1.0
"""Between two events of a row; its progress is written more often than that."""
WRITE_SECONDS = 0.1
"""Between two writes because a row has begun to move: they come in flocks."""


class ShowsPreviews(Protocol):
    """Where pictures that are not finished go."""

    def preview(self, run: ShardRun, taken: Taken, step: int) -> None: ...


@dataclass
class _Course:
    """What is known of one row. ``fraction`` only grows: an engine may count its stages anew."""

    latest: RowProgress
    name: str | None
    fraction: float = 0.0
    changed: bool = True
    announced_at: float | None = None


class Reports:
    """The latest word on each row. Owned by the supervisor's thread."""

    def __init__(self, spool: Spool, previews: ShowsPreviews) -> None:
        self._spool = spool
        self._previews = previews
        self._courses: dict[Held, _Course] = {}
        self._write_after = 0.0
        self._urgent = False

    def note(self, run: ShardRun | None, row: RowProgress, folder: str) -> None:
        """An engine's word; ``run`` is None when nobody wants it. Slices count finished rows and
        take no part in this; a preview of one of their rows is dropped."""
        if run is None or run.is_batch or run.ending:
            self._spool.drop(folder, [row.preview] if row.preview else [])
            return
        if row.preview is not None:
            with contextlib.suppress(BadFile):
                self._previews.preview(run, self._spool.take(folder, row.preview), row.step)
        course = self._courses.get(run.held)
        if course is None:
            course = self._courses[run.held] = _Course(row, run.claim.step)
            self._urgent = True
        course.latest, course.changed = row, True
        course.fraction = max(course.fraction, min(1.0, row.step / max(1, row.steps)))

    def forget(self, held: Held) -> None:
        self._courses.pop(held, None)

    def due_at(self) -> float | None:
        """When to write, by ``time.monotonic``; None while it can wait for the next watch."""
        return self._write_after if self._urgent else None

    def take(self) -> list[RowStep]:
        """What changed since the last call, to be written now."""
        now = time.monotonic()
        self._urgent, self._write_after = False, now + WRITE_SECONDS
        return [
            self._told(held, course, now)
            for held, course in self._courses.items()
            if course.changed
        ]

    @staticmethod
    def _told(held: Held, course: _Course, now: float) -> RowStep:
        announce = course.announced_at is None or now - course.announced_at >= ANNOUNCE_SECONDS
        if announce:
            course.announced_at = now
        course.changed = False
        latest = course.latest
        return RowStep(
            held,
            course.fraction,
            max(0, latest.step),
            max(0, latest.steps),
            latest.stage[:64],
            announce,
            course.name,
        )
