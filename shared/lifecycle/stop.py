"""Stopping a job on request or at its deadline. Running work is asked, never torn away."""

from __future__ import annotations

from sqlalchemy import Connection, text

from shared.lifecycle.graphs import GRAPH_ENDED, STOPPING
from shared.lifecycle.settle import ClosedShard, settle_closed
from shared.states import OPEN_JOB, ShardState, StopReason, guard

_REQUEST = text(f"""
UPDATE jobs SET stop_reason = :reason, cancel_requested_at = clock_timestamp(),
       version = version + 1
 WHERE id = :job AND tenant_id = :tenant AND state IN ({OPEN_JOB})
   AND stop_reason IS NULL AND stage <> 'assemble'
RETURNING id
""")

AT_ONCE = 10_000
"""A batch of graphs may have more waiting steps than one statement should touch."""

# Shards that somebody is moving this instant are skipped; the sweep or their worker stops them.
_CANCEL_WAITING = text(f"""
WITH waiting AS (
    SELECT s.id FROM shards s JOIN jobs j ON j.id = s.job_id
     WHERE s.job_id = ANY(:jobs) AND {STOPPING}
       AND s.state IN ('queued', 'ready') LIMIT {AT_ONCE} FOR UPDATE OF s SKIP LOCKED)
UPDATE shards s SET state = 'cancelled', ended_at = clock_timestamp()
  FROM waiting, jobs j
 WHERE s.id = waiting.id AND j.id = s.job_id AND {guard("s.state", ShardState.CANCELLED)}
   AND {STOPPING}
RETURNING s.id, s.job_id, j.kind, s.stage
""")

# The clock in a subquery bounds the scan of the index: all open jobs have a place in that.
_OVERDUE = text(f"""
WITH overdue AS (
    SELECT id FROM jobs WHERE state IN ({OPEN_JOB}) AND stop_reason IS NULL
       AND stage <> 'assemble' AND expires_at <= (SELECT clock_timestamp())
     ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)
UPDATE jobs j SET stop_reason = 'expired', cancel_requested_at = clock_timestamp(),
       version = version + 1
  FROM overdue WHERE j.id = overdue.id RETURNING j.id
""")

# Skipped shards of a graph that has ended since. Nothing is left to settle about them.
_STRANDED = text(f"""
WITH stranded AS (
    SELECT s.id FROM shards s WHERE s.state = 'ready' AND s.stage = 'step' AND {GRAPH_ENDED}
     LIMIT :limit FOR UPDATE OF s SKIP LOCKED)
UPDATE shards s SET state = 'cancelled', ended_at = clock_timestamp()
  FROM stranded WHERE s.id = stranded.id AND {guard("s.state", ShardState.CANCELLED)}
""")

_STOPPING = text(f"""
SELECT j.id FROM jobs j
 WHERE j.state IN ({OPEN_JOB}) AND j.stop_reason IS NOT NULL
   AND EXISTS (SELECT 1 FROM shards s WHERE s.job_id = j.id AND {STOPPING}
                  AND s.state IN ('queued', 'ready'))
 LIMIT :limit FOR UPDATE OF j SKIP LOCKED
""")

# Trials whose sweep is stopping or has ended, however it did. A trial that somebody holds this
# instant is skipped: a resumption does, and then wants the lock of the sweep's job.
_STOP_TRIALS = text(f"""
WITH open AS (
    SELECT c.id, coalesce(p.stop_reason, 'cancelled') AS reason
      FROM trials t JOIN jobs c ON c.id = t.job_id JOIN jobs p ON p.id = t.parent_id
     WHERE t.ended_at IS NULL AND (CAST(:parent AS text) IS NULL OR t.parent_id = :parent)
       AND c.state IN ({OPEN_JOB}) AND c.stop_reason IS NULL
       AND (p.stop_reason IS NOT NULL OR p.state NOT IN ({OPEN_JOB}))
     LIMIT :limit FOR UPDATE OF c SKIP LOCKED)
UPDATE jobs j SET stop_reason = open.reason, cancel_requested_at = clock_timestamp(),
       version = j.version + 1
  FROM open WHERE j.id = open.id RETURNING j.id
""")

# Batches whose production is stopping or has ended, however it did; as trials.
_STOP_PRODUCTION_BATCHES = text(f"""
WITH open AS (
    SELECT c.id, coalesce(p.stop_reason, 'cancelled') AS reason
      FROM production_batches b JOIN jobs c ON c.id = b.job_id JOIN jobs p ON p.id = b.parent_id
     WHERE b.ended_at IS NULL AND (CAST(:parent AS text) IS NULL OR b.parent_id = :parent)
       AND c.state IN ({OPEN_JOB}) AND c.stop_reason IS NULL AND c.stage <> 'assemble'
       AND (p.stop_reason IS NOT NULL OR p.state NOT IN ({OPEN_JOB}))
     LIMIT :limit FOR UPDATE OF c SKIP LOCKED)
UPDATE jobs j SET stop_reason = open.reason, cancel_requested_at = clock_timestamp(),
       version = j.version + 1
  FROM open WHERE j.id = open.id RETURNING j.id
""")


def request_stop(
    connection: Connection, *, tenant_id: str, job_id: str, reason: StopReason
) -> bool:
    """Asks an open job to stop, and with it the trials of a sweep and the batch of a production;
    waiting shards end at once (``AT_ONCE`` of them, the rest by the sweep), running ones within a
    step.

    False when it was already stopping, is being assembled, has ended, or is not the tenant's.
    """
    values = {"job": job_id, "tenant": tenant_id, "reason": str(reason)}
    if connection.execute(_REQUEST, values).one_or_none() is None:
        return False
    _cancel_waiting(connection, [job_id])
    stop_trials(connection, parent_id=job_id)
    stop_production_batches(connection, parent_id=job_id)
    return True


def stop_trials(connection: Connection, *, parent_id: str | None = None, limit: int = 100) -> int:
    """Asks open trials of sweeps that are stopping or have ended to stop, of one sweep or of any;
    returns how many."""
    values = {"parent": parent_id, "limit": limit}
    jobs = [row.id for row in connection.execute(_STOP_TRIALS, values)]
    _cancel_waiting(connection, jobs)
    return len(jobs)


def stop_production_batches(
    connection: Connection, *, parent_id: str | None = None, limit: int = 100
) -> int:
    """Asks open batches of productions that are stopping or have ended to stop, of one production
    or of any; returns how many."""
    values = {"parent": parent_id, "limit": limit}
    jobs = [row.id for row in connection.execute(_STOP_PRODUCTION_BATCHES, values)]
    _cancel_waiting(connection, jobs)
    return len(jobs)


def expire_overdue(connection: Connection, *, limit: int = 100) -> int:
    """Stops jobs whose deadline has passed; returns how many."""
    jobs = [row.id for row in connection.execute(_OVERDUE, {"limit": limit})]
    _cancel_waiting(connection, jobs)
    return len(jobs)


def sweep_stopped(connection: Connection, *, limit: int = 100) -> int:
    """Cancels waiting shards of stopping jobs, and waiting steps of ended graphs, that an earlier
    stop or end had to skip."""
    jobs = [row.id for row in connection.execute(_STOPPING, {"limit": limit})]
    stranded = connection.execute(_STRANDED, {"limit": limit}).rowcount
    return stranded + _cancel_waiting(connection, jobs)


def _cancel_waiting(connection: Connection, jobs: list[str]) -> int:
    if not jobs:
        return 0
    rows = connection.execute(_CANCEL_WAITING, {"jobs": jobs}).all()
    settle_closed(
        connection,
        [
            ClosedShard(row.id, row.job_id, row.kind, row.stage, ShardState.CANCELLED)
            for row in rows
        ],
    )
    return len(rows)
