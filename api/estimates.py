"""When a job should start and end: from what its pool did lately, and from what it did itself.

Nothing here guesses: without something measured to go by there is no estimate.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Engine

from api.caching import RecentCache
from api.limits import PACE_CACHE_SECONDS
from shared.db.job_rows import MAX_POSITION, JobRow, Standing
from shared.db.queue_estimates import Pace, recent_pace
from shared.states import JobState, Stage

MAX_POOLS = 1_000


class Outlook(NamedTuple):
    """What is to be expected of a job, in seconds from now; None where nothing tells."""

    starts_in: float | None = None
    ends_in: float | None = None


def outlook(row: JobRow | Standing, pace: Pace | None) -> Outlook:
    """Pure. ``pace`` is that of the row's pool."""
    if row.state == JobState.QUEUED:
        return _of_queued(row, pace)
    if row.state == JobState.RUNNING:
        return Outlook(ends_in=_of_running(row, pace))
    return Outlook()


def _of_queued(row: JobRow | Standing, pace: Pace | None) -> Outlook:
    # A place that is no longer counted exactly says only that it takes longer than that.
    if pace is None or row.queue_position is None or row.queue_position >= MAX_POSITION:
        return Outlook()
    starts_in = row.queue_position / pace.shards_a_second
    alone = row.stage == Stage.GENERATE and row.kind != "batch"
    return Outlook(starts_in, starts_in + pace.shard_seconds if alone else None)


def _of_running(row: JobRow | Standing, pace: Pace | None) -> float | None:
    since = row.in_progress_at or row.started_at
    if since is None:
        return None
    elapsed = max(0.0, row.now - since)
    done = row.rows_completed + row.rows_failed + (row.progress or 0.0)
    if 0 < done < row.rows_total:
        return elapsed * (row.rows_total - done) / done
    alone = row.stage == Stage.GENERATE and row.kind != "batch"
    if alone and pace is not None and elapsed < pace.shard_seconds:
        return pace.shard_seconds - elapsed
    return None


class Estimator:
    """Outlooks of jobs, by the paces of their pools as they were some seconds ago."""

    def __init__(self, engine: Engine, *, cache_seconds: float = PACE_CACHE_SECONDS) -> None:
        """``engine`` must autocommit."""
        self._engine = engine
        self._cache_seconds = cache_seconds
        self._paces: RecentCache[str, tuple[Pace | None]] = RecentCache(MAX_POOLS)

    def outlook(self, row: JobRow | Standing) -> Outlook:
        if row.pool is None:
            return Outlook()
        return outlook(row, self.pace(row.pool))

    def pace(self, pool: str) -> Pace | None:
        """How fast the pool works; None when there is nothing to go by."""
        known = self._paces.get(pool)
        if known is None:
            with self._engine.connect() as connection:
                known = (recent_pace(connection, pool),)
            self._paces.put(pool, known, self._cache_seconds)
        return known[0]
