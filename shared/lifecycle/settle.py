"""What a closed shard means for its job; shared by finish, release, stop and the reaper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.lifecycle.graphs import ClosedStep, close_steps, find_steps
from shared.pools import UPKEEP
from shared.states import JobState, ShardState, Stage, guard

MAX_ERRORS = 3
"""Handled failures (storage, a broken input slice) of one shard before it is given up."""
MAX_CRASHES = 2
"""Engine crashes with the shard's row alone in the engine."""
MAX_LOSSES = 5
"""Times the whole worker vanished while it held the shard."""

_COUNT_DOWN = text("""
UPDATE jobs SET shards_open = shards_open - :shards, rows_completed = rows_completed + :completed,
       rows_failed = rows_failed + :failed, input_tokens = input_tokens + :input_tokens,
       output_tokens = output_tokens + :output_tokens, version = version + 1
 WHERE id = :job RETURNING shards_open, stage
""")

_BEGIN_ASSEMBLY = text("""
WITH job AS (
    UPDATE jobs SET stage = 'assemble', shards_open = 1, finalizing_at = clock_timestamp(),
           version = version + 1
     WHERE id = :job AND stage = 'generate' RETURNING id, tenant_id, priority
), announced AS (
    INSERT INTO events (tenant_id, job_id, type) SELECT tenant_id, id, 'batch.finalizing' FROM job
)
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, ready_seq, priority)
SELECT id, tenant_id, :pool, 'assemble', 0, 'ready', nextval('ready_seq'), priority FROM job
""")

_END_JOB = text(f"""
WITH job AS (
    UPDATE jobs j
       SET state = CASE :state WHEN 'stopped' THEN coalesce(j.stop_reason, 'cancelled')
                               ELSE :state END,
           error_code = :code, error_message = :message, shards_open = 0,
           version = j.version + 1, ended_at = clock_timestamp()
     WHERE j.id = :job AND {guard("j.state", JobState.FAILED)}
    RETURNING j.id, j.tenant_id, j.kind, j.state
)
INSERT INTO events (tenant_id, job_id, type)
SELECT tenant_id, id, CASE kind WHEN 'generate' THEN 'job.' ELSE kind || '.' END || state FROM job
""")

_BACK_TO_QUEUED = text(f"""
UPDATE jobs j SET state = 'queued', version = version + 1
 WHERE j.id = ANY(:jobs) AND j.kind <> 'batch' AND j.stage IN ('generate', 'train')
   AND {guard("j.state", JobState.QUEUED)}
""")


@dataclass(frozen=True, slots=True)
class ClosedShard:
    """A shard that left ``running`` or the queue other than by its worker's commit."""

    shard_id: int
    job_id: str
    kind: str
    stage: str
    state: ShardState
    error_code: str | None = None
    error_message: str | None = None


def settle_batch(
    connection: Connection,
    job_id: str,
    *,
    shards: int,
    completed: int = 0,
    failed: int = 0,
    input_tokens: int = 0,
    output_tokens: int = 0,
) -> None:
    """Counts ``shards`` closed slices off a batch; at zero, opens its assembly."""
    row = connection.execute(
        _COUNT_DOWN,
        {
            "job": job_id,
            "shards": shards,
            "completed": completed,
            "failed": failed,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
        },
    ).one()
    if row.shards_open == 0 and row.stage == Stage.GENERATE:
        connection.execute(_BEGIN_ASSEMBLY, {"job": job_id, "pool": UPKEEP})


def settle_closed(connection: Connection, closed: Iterable[ClosedShard]) -> None:
    """Carries shards that failed or were stopped over to their jobs.

    A lost slice of a batch never fails the batch: assembly writes its rows to the error file.
    """
    slices: dict[str, int] = {}
    steps: dict[int, tuple[ShardState, str | None]] = {}
    for shard in closed:
        if shard.stage == Stage.STEP:
            steps[shard.shard_id] = (shard.state, shard.error_message)
        elif shard.kind == "batch" and shard.stage == Stage.GENERATE:
            slices[shard.job_id] = slices.get(shard.job_id, 0) + 1
        else:
            end_job(connection, shard)
    graphs: dict[str, list[ClosedStep]] = {}
    for step in find_steps(connection, steps) if steps else []:
        graphs.setdefault(step.job_id, []).append(step)
    for job_id in sorted({*slices, *graphs}):
        if job_id in graphs:
            close_steps(connection, job_id, graphs[job_id])
        if job_id in slices:
            settle_batch(connection, job_id, shards=slices[job_id])


def end_job(connection: Connection, shard: ClosedShard) -> None:
    """Ends the job of a shard that carried all of it."""
    stopped = shard.state == ShardState.CANCELLED
    connection.execute(
        _END_JOB,
        {
            "job": shard.job_id,
            "state": "stopped" if stopped else str(JobState.FAILED),
            "code": shard.error_code,
            "message": shard.error_message,
        },
    )


def back_to_queued(connection: Connection, job_ids: Iterable[str]) -> None:
    """Shows single generations and trainings as queued again after their shard went back."""
    connection.execute(_BACK_TO_QUEUED, {"jobs": sorted(set(job_ids))})
