"""Pausing a training and taking it up again. A request on the job (``paused_at``), not a state.

A paused job's training waits in the queue, blocked. One that runs is told by ``watch``: its worker
saves a checkpoint and gives it back, and whoever makes a shard wait asks here, under the lock of
the job, whether the job is paused at that moment. A pause and a resumption therefore can't miss a
shard that comes back between their statements.

A sweep pauses with its trials. Pausing it skips a trial that somebody holds this instant, which a
pass pauses later (``pause_trials``); resuming it waits for each of them, so that none is left.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, text

from shared.lifecycle.tuning_events import PAUSED, RESUMED, announce
from shared.states import OPEN_JOB, ShardState, guard

# A claim that is under way is waited for: what it has taken then runs, and is asked to stop.
_LOCK_WAITING = text("""
SELECT s.id FROM shards s
 WHERE s.job_id = :job AND s.tenant_id = :tenant AND s.stage = 'train'
   AND s.state IN ('queued', 'ready') FOR UPDATE
""")

_PAUSE = text(f"""
UPDATE jobs SET paused_at = clock_timestamp(), version = version + 1
 WHERE id = :job AND tenant_id = :tenant AND kind = 'fine_tune' AND state IN ({OPEN_JOB})
   AND paused_at IS NULL AND stop_reason IS NULL
RETURNING id
""")

_RESUME = text(f"""
UPDATE jobs SET paused_at = NULL, version = version + 1
 WHERE id = :job AND tenant_id = :tenant AND kind = 'fine_tune' AND state IN ({OPEN_JOB})
   AND paused_at IS NOT NULL
RETURNING id
""")

_LOCK_JOBS = text("""
SELECT id FROM jobs WHERE id = ANY(:jobs) AND kind = 'fine_tune' ORDER BY id FOR UPDATE
""")

_BLOCK = text(f"""
WITH waiting AS (
    SELECT s.id FROM shards s JOIN jobs j ON j.id = s.job_id
     WHERE s.job_id = ANY(:jobs) AND s.stage = 'train' AND j.paused_at IS NOT NULL
       AND s.blocked_n = 0 AND s.state IN ('queued', 'ready') FOR UPDATE OF s SKIP LOCKED)
UPDATE shards s SET state = 'queued', ready_seq = NULL, blocked_n = 1
  FROM waiting
 WHERE s.id = waiting.id AND (s.state = 'queued' OR {guard("s.state", ShardState.QUEUED)})
RETURNING s.job_id
""")

# A sweep that waits for its trials looks at them again, and waits again.
_UNBLOCK = text("""
UPDATE shards s SET blocked_n = 0 FROM jobs j
 WHERE s.job_id = ANY(:jobs) AND j.id = s.job_id AND j.paused_at IS NULL
   AND s.stage IN ('train', 'sweep') AND s.state = 'queued' AND s.blocked_n > 0
""")

# The sweep's row is locked too, so that a resumption that has just let go of it is seen.
_PAUSE_TRIALS = text(f"""
WITH open AS (
    SELECT c.id FROM trials t JOIN jobs c ON c.id = t.job_id JOIN jobs p ON p.id = t.parent_id
     WHERE t.ended_at IS NULL AND (CAST(:parent AS text) IS NULL OR t.parent_id = :parent)
       AND c.state IN ({OPEN_JOB}) AND c.stop_reason IS NULL AND c.paused_at IS NULL
       AND p.state IN ({OPEN_JOB}) AND p.paused_at IS NOT NULL
     LIMIT :limit FOR UPDATE OF c, p SKIP LOCKED)
UPDATE jobs j SET paused_at = clock_timestamp(), version = j.version + 1
  FROM open WHERE j.id = open.id RETURNING j.id
""")

_LOCK_TRIALS = text("""
SELECT c.id FROM trials t JOIN jobs c ON c.id = t.job_id
 WHERE t.parent_id = :job AND t.ended_at IS NULL AND c.tenant_id = :tenant
 ORDER BY c.id FOR UPDATE OF c
""")

_RESUME_TRIALS = text(f"""
UPDATE jobs SET paused_at = NULL, version = version + 1
 WHERE id = ANY(:jobs) AND paused_at IS NOT NULL AND state IN ({OPEN_JOB})
RETURNING id
""")


def request_pause(connection: Connection, *, tenant_id: str, job_id: str) -> bool:
    """Asks an open fine-tuning job to pause: what waits is not started, what runs saves a
    checkpoint and stops.

    False when it was paused or stopping already, has ended, or is not the tenant's.
    """
    values = {"job": job_id, "tenant": tenant_id}
    connection.execute(_LOCK_WAITING, values)
    if connection.execute(_PAUSE, values).one_or_none() is None:
        return False
    connection.execute(_BLOCK, {"jobs": [job_id]})
    announce(connection, job_id, PAUSED)
    pause_trials(connection, parent_id=job_id)
    return True


def pause_trials(connection: Connection, *, parent_id: str | None = None, limit: int = 100) -> int:
    """Pauses open trials of paused sweeps, of one sweep or of any; returns how many."""
    values = {"parent": parent_id, "limit": limit}
    jobs = [row.id for row in connection.execute(_PAUSE_TRIALS, values)]
    connection.execute(_BLOCK, {"jobs": jobs})
    for job_id in jobs:
        announce(connection, job_id, PAUSED)
    return len(jobs)


def request_resume(connection: Connection, *, tenant_id: str, job_id: str) -> bool:
    """Lets a paused job go on, and the trials of a sweep with it; False when it was not paused, has
    ended, or is not the tenant's."""
    values = {"job": job_id, "tenant": tenant_id}
    trials = list(connection.execute(_LOCK_TRIALS, values).scalars())
    if connection.execute(_RESUME, values).one_or_none() is None:
        return False
    resumed = [job_id, *connection.execute(_RESUME_TRIALS, {"jobs": trials}).scalars()]
    connection.execute(_UNBLOCK, {"jobs": resumed})
    for resumed_id in resumed:
        announce(connection, resumed_id, RESUMED)
    return True


def block_paused(connection: Connection, job_ids: Iterable[str]) -> set[str]:
    """For the transaction that has just put a training into the queue: blocks it if its job is
    paused. Returns the jobs of those that were."""
    jobs = sorted(set(job_ids))
    if not connection.execute(_LOCK_JOBS, {"jobs": jobs}).all():
        return set()
    return set(connection.execute(_BLOCK, {"jobs": jobs}).scalars())
