"""How far the fake engine's slow rows are: steps pass with the time that each was given."""

from __future__ import annotations

from dataclasses import dataclass

from worker.engines.fake_desk import Where
from worker.engines.fake_media import fake_preview, preview_count, step_count
from worker.engines.protocol import Row, RowProgress


@dataclass
class _Course:
    """One row under way; ``step`` and ``previews`` are what was told already."""

    row: Row
    began: float
    seconds: float
    steps: int
    previews_wanted: int
    step: int = 0
    previews: int = 0


class Clockwork:
    """Knows when each row was begun, and what its clock says now."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._courses: dict[tuple[int, int, int], _Course] = {}

    def start(self, shard: int, epoch: int, row: Row, now: float, seconds: float) -> None:
        """The row will take ``seconds`` from ``now``. Raises msgspec.MsgspecError."""
        previews = preview_count(row.endpoint, row.body)
        course = _Course(row, now, seconds, step_count(row.body), previews)
        self._courses[shard, epoch, row.index] = course

    def stop(self, shard: int, epoch: int, index: int | None = None) -> None:
        """The row has ended, or with no ``index`` all rows of the shard have."""
        for key in [k for k in self._courses if k[:2] == (shard, epoch)]:
            if index is None or key[2] == index:
                del self._courses[key]

    def tick(self, now: float) -> list[RowProgress]:
        """The rows that finished a step since the last tick, the last step excepted."""
        told: list[RowProgress] = []
        for (shard, epoch, index), course in self._courses.items():
            share = (now - course.began) / course.seconds
            step = min(course.steps - 1, int(share * course.steps))
            if step <= course.step:
                continue
            course.step = step
            preview = None
            due = step * (course.previews_wanted + 1) // course.steps
            if due > course.previews:
                preview = fake_preview(course.row, self._where, course.previews)
                course.previews += 1
            told.append(RowProgress(shard, epoch, index, step, course.steps, "denoising", preview))
        return told
