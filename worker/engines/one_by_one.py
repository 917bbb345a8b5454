"""An engine that works on one row after another, each a generator that does a little at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.errors import PressrunError
from worker.engines.protocol import OutputFile, Row, RowProgress, RowResult
from worker.engines.responses import refusal

CAPACITY = 4
"""Rows held at once, running and waiting."""
STEP_SECONDS = 0.25
"""How long a step goes on, give or take one piece of work."""


@dataclass(frozen=True, slots=True)
class Advance:
    """A bounded piece of work is done: ``step`` of ``steps``."""

    step: int
    steps: int
    """0 while nobody knows yet."""
    stage: str


@dataclass(frozen=True, slots=True)
class Made:
    """What a row became: a body as JSON, and files in the spool."""

    body: bytes
    files: list[OutputFile]


class RowFailed(Exception):
    """The row can't be run here, though nothing is wrong with it: status 500."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


Work = Generator[Advance, None, Made]
"""Does a little with each ``next``; ``close`` ends it and removes what it wrote. Raises
PressrunError for what the caller must change, and RowFailed."""


@dataclass(eq=False, slots=True)
class _Job:
    shard: int
    epoch: int
    index: int
    work: Work


class OneByOne:
    """An ``Engine`` that reports progress. What it makes depends on the row alone, not on how the
    work falls into steps."""

    def __init__(
        self,
        begin: Callable[[Row], Work],
        *,
        detail: dict[str, Any],
        resident_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``begin`` raises PressrunError for a row that can be refused at once, and leaves all
        work to the generator."""
        self._begin, self._clock = begin, clock
        self._detail, self._resident_bytes = detail, resident_bytes
        self._waiting: deque[_Job] = deque()
        self._current: _Job | None = None
        self._reached: Advance | None = None

    @property
    def capacity(self) -> int:
        return CAPACITY

    @property
    def resident_bytes(self) -> int:
        return self._resident_bytes

    @property
    def detail(self) -> dict[str, Any]:
        return self._detail

    @property
    def busy(self) -> bool:
        return self._current is not None or bool(self._waiting)

    @property
    def active_rows(self) -> int:
        return int(self._current is not None)

    @property
    def waiting_rows(self) -> int:
        return len(self._waiting)

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        """Queues a row, or answers at once with status 400."""
        try:
            work = self._begin(row)
        except PressrunError as error:
            return _refused(shard, epoch, row.index, error)
        self._waiting.append(_Job(shard, epoch, row.index, work))
        return None

    def cancel(self, shard: int, epoch: int) -> None:
        self._waiting = deque(j for j in self._waiting if (j.shard, j.epoch) != (shard, epoch))
        job = self._current
        if job is not None and (job.shard, job.epoch) == (shard, epoch):
            self._current = self._reached = None
            job.work.close()

    def step(self) -> list[RowResult]:
        """Works on the first row for about ``STEP_SECONDS``."""
        job = self._current = self._current or self._waiting.popleft()
        until = self._clock() + STEP_SECONDS
        try:
            self._reached = next(job.work)
            while self._clock() < until:
                self._reached = next(job.work)
        except StopIteration as end:
            return [self._ended(_made(job, end.value))]
        except PressrunError as error:
            return [self._ended(_refused(job.shard, job.epoch, job.index, error))]
        except RowFailed as error:
            return [self._ended(_failed(job, error))]
        return []

    def progress(self) -> list[RowProgress]:
        job, reached = self._current, self._reached
        self._reached = None
        if job is None or reached is None or not reached.steps:
            return []
        step, steps, stage = reached.step, reached.steps, reached.stage
        return [RowProgress(job.shard, job.epoch, job.index, step, steps, stage)]

    def _ended(self, result: RowResult) -> RowResult:
        self._current = self._reached = None
        return result


def _made(job: _Job, made: Made) -> RowResult:
    return RowResult(job.shard, job.epoch, job.index, 200, made.body, files=made.files)


def _refused(shard: int, epoch: int, index: int, error: PressrunError) -> RowResult:
    return refusal(shard, epoch, index, code=error.code, message=error.message, param=error.param)


def _failed(job: _Job, error: RowFailed) -> RowResult:
    told = {"message": error.message, "type": "server_error", "param": None, "code": error.code}
    body = msgspec.json.encode({"error": told})
    return RowResult(job.shard, job.epoch, job.index, 500, body)
