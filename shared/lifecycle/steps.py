"""Steps: put into the database, committed, and unfolded from the rows of a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from shared.lifecycle.artifacts import add_artifacts
from shared.lifecycle.fence import FENCE, Held, count_zombies
from shared.lifecycle.finish import GenerationEnd
from shared.lifecycle.graphs import UNFOLDED, ClosedStep, close_steps
from shared.lifecycle.release import ReleaseReason, release
from shared.lifecycle.usage import RAN, cost, made, priced
from shared.pools import UPKEEP

if TYPE_CHECKING:
    from shared.plans.base import Step

ORDINALS_PER_LINE = 2**20
PLAN = "plan"
"""The name of the one step, failed, of a row that could not be planned."""

# Steps of a job that is being accepted may be ready at once; ``:window`` is 0 for all others.
_ADD = text("""
WITH new AS (
    SELECT n.name, n.pool, n.endpoint, n.model, CAST(n.spec AS json) AS spec, n.turn,
           ARRAY(SELECT json_array_elements_text(CAST(n.needs AS json))) AS needs,
           json_array_length(CAST(n.needs AS json)) AS blocked_n,
           n.turn = count(*) OVER () AS last
      FROM unnest(CAST(:names AS text[]), CAST(:pools AS text[]), CAST(:endpoints AS text[]),
                  CAST(:models AS text[]), CAST(:specs AS text[]), CAST(:needs AS text[]))
           WITH ORDINALITY AS n (name, pool, endpoint, model, spec, needs, turn)
), job AS (
    SELECT id, tenant_id, priority FROM jobs WHERE id = :job
), room AS (
    SELECT g.pool,
           CASE WHEN EXISTS (SELECT 1 FROM shards q WHERE q.pool = g.pool AND q.state = 'queued'
                                AND q.blocked_n = 0 AND q.tenant_id = job.tenant_id) THEN 0
                ELSE :window - (SELECT count(*) FROM (
                         SELECT 1 FROM shards r WHERE r.pool = g.pool AND r.state = 'ready'
                            AND r.tenant_id = job.tenant_id LIMIT :window) taken) END AS free
      FROM (SELECT DISTINCT pool FROM new) g, job
), placed AS (
    SELECT new.turn, new.pool, new.blocked_n, new.model,
           new.blocked_n = 0 AND room.free >= row_number() OVER (
               PARTITION BY new.pool, new.blocked_n = 0 ORDER BY new.turn) AS ready
      FROM new JOIN room USING (pool)
), shard AS (
    INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, ready_seq, blocked_n,
                        priority, model)
    SELECT job.id, job.tenant_id, p.pool, 'step', :first + p.turn,
           CASE WHEN p.ready THEN 'ready' ELSE 'queued' END,
           CASE WHEN p.ready THEN nextval('ready_seq') END, p.blocked_n, job.priority,
           p.model
      FROM placed p, job ORDER BY p.turn
    RETURNING id, ordinal
)
INSERT INTO steps (shard_id, job_id, line, name, needs, endpoint, model, spec, last, slice_id)
SELECT shard.id, :job, :line, new.name, new.needs, new.endpoint, new.model, new.spec, new.last,
       CAST(:slice AS bigint)
  FROM new JOIN shard ON shard.ordinal = :first + new.turn
""")

_ADD_FAILED = text("""
WITH shard AS (
    INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, priority, error_code,
                        error_message, ended_at)
    SELECT id, tenant_id, :pool, 'step', :first + 1, 'failed', priority, :code, :message,
           clock_timestamp()
      FROM jobs WHERE id = :job
    RETURNING id)
INSERT INTO steps (shard_id, job_id, line, name, needs, endpoint, spec, last, ended, slice_id)
SELECT id, :job, :line, :name, '{}', :endpoint, '{}', true, true, CAST(:slice AS bigint)
  FROM shard
""")

_COMMIT = text(f"""
WITH shard AS (
    UPDATE shards s
       SET state = :state, output_sha256 = :sha256, error_code = :code, error_message = :message,
           ended_at = clock_timestamp(),
           rows_completed = CASE :state WHEN 'succeeded' THEN 1 ELSE 0 END,
           rows_failed = CASE :state WHEN 'failed' THEN 1 ELSE 0 END
     WHERE s.id = :id AND {FENCE}
    RETURNING s.id, s.epoch, s.job_id, s.tenant_id,
              CAST(:input_tokens AS bigint) AS input_tokens,
              CAST(:output_tokens AS bigint) AS output_tokens, CAST(:images AS int) AS images,
              CAST(:media AS double precision) AS media_seconds,
              coalesce(CAST(:compute AS double precision), {RAN}) AS compute_seconds
), step AS (
    UPDATE steps t SET result = CAST(:result AS json) FROM shard WHERE t.shard_id = shard.id
    RETURNING t.shard_id, t.job_id, t.line, t.name, t.last, t.endpoint, t.model
), counted AS (
    INSERT INTO usage (shard_id, endpoint, model, epoch, tenant_id, job_id, rows, input_tokens,
                       output_tokens, images, media_seconds, compute_seconds, cost)
    SELECT shard.id, step.endpoint, step.model, shard.epoch, shard.tenant_id, shard.job_id, 1,
           shard.input_tokens, shard.output_tokens, shard.images, shard.media_seconds,
           shard.compute_seconds, {cost("step.endpoint", "shard")}
      FROM shard JOIN step ON step.shard_id = shard.id {priced("step.model")}
     WHERE :state = 'succeeded' AND step.model IS NOT NULL
)
SELECT job_id, line, name, last FROM step
""")

_ALREADY_MINE = text("""
SELECT 1 FROM shards WHERE id = :id AND epoch = :epoch AND session_id = :me
   AND output_sha256 = :sha256 AND state = :state
""")

_HOLD = text(f"SELECT s.job_id FROM shards s WHERE s.id = :id AND {FENCE} FOR UPDATE")
_LOCK_JOB = text("SELECT stop_reason FROM jobs WHERE id = :job FOR UPDATE")

_PUT_BACK = text(f"""
UPDATE shards s SET state = 'queued', blocked_n = :blocked, rows_failed = :failed, ready_seq = NULL
 WHERE s.id = :id AND {FENCE}
""")

_ALREADY_UNFOLDED = text(f"""
SELECT 1 FROM shards s
 WHERE s.id = :id AND s.epoch = :epoch AND s.session_id = :me AND {UNFOLDED}
""")


@dataclass(frozen=True, slots=True)
class Graph:
    """What one row of a batch became: steps, or the reason why there can be none."""

    line: int
    endpoint: str
    steps: Sequence[Step]
    error_code: str | None = None
    error_message: str | None = None


def add_steps(
    connection: Connection,
    job_id: str,
    steps: Sequence[Step],
    *,
    line: int = 0,
    slice_id: int | None = None,
    window: int = 0,
) -> None:
    """Adds a graph's steps; the last one is the one whose result counts. A step waits for those it
    needs; up to ``window`` of the others are ready at once, where the tenant has room."""
    needs = [list(dict.fromkeys(step.needs)) for step in steps]
    connection.execute(
        _ADD,
        {
            "job": job_id,
            "line": line,
            "slice": slice_id,
            "first": line * ORDINALS_PER_LINE,
            "window": window,
            "names": [step.name for step in steps],
            "pools": [step.pool for step in steps],
            "endpoints": [step.endpoint for step in steps],
            "models": [step.model for step in steps],
            "specs": [json.dumps(step.body) for step in steps],
            "needs": [json.dumps(names) for names in needs],
        },
    )


def finish_step(connection: Connection, session_id: str, end: GenerationEnd) -> bool:
    """Commits a step: its result, usage and artifacts become visible, steps that waited for it may
    run, and the outcome of its graph is settled when this decides it. Idempotent for the same
    bytes; False means that this worker is a zombie and must drop it.
    """
    images, seconds = made(end.artifacts)
    values = {
        "me": session_id,
        "id": end.held.shard_id,
        "epoch": end.held.epoch,
        "state": str(end.state),
        "sha256": end.sha256,
        "result": end.result,
        "code": end.error_code,
        "message": end.error_message,
        "input_tokens": end.input_tokens,
        "output_tokens": end.output_tokens,
        "images": images,
        "media": seconds,
        "compute": end.compute_seconds,
    }
    row = connection.execute(_COMMIT, values).one_or_none()
    if row is None:
        if connection.execute(_ALREADY_MINE, values).scalar():
            return True
        count_zombies(connection, [end.held])
        return False
    if end.artifacts:
        add_artifacts(connection, end.held, end.artifacts)
    step = ClosedStep(
        row.job_id, row.line, row.name, row.last, end.state, end.error_message, end.result
    )
    close_steps(
        connection,
        row.job_id,
        [step],
        input_tokens=end.input_tokens,
        output_tokens=end.output_tokens,
    )
    return True


def unfold_slice(
    connection: Connection, session_id: str, held: Held, graphs: Sequence[Graph]
) -> bool:
    """Turns a slice's rows into steps and puts the slice back, to wait for them; claimed again, it
    writes their lines. When the batch was asked to stop, the slice ends instead. False means that
    this worker is a zombie.
    """
    values = {"me": session_id, "id": held.shard_id, "epoch": held.epoch}
    job_id = connection.execute(_HOLD, values).scalar()
    if job_id is None:
        if connection.execute(_ALREADY_UNFOLDED, values).scalar():
            return True
        count_zombies(connection, [held])
        return False
    if connection.execute(_LOCK_JOB, {"job": job_id}).scalar_one() is not None:
        release(connection, session_id, held, ReleaseReason.PREEMPTED)
        return True
    planned = [graph for graph in graphs if graph.steps]
    failed = len(graphs) - len(planned)
    connection.execute(_PUT_BACK, values | {"blocked": len(planned), "failed": failed})
    for graph in graphs:
        if graph.steps:
            add_steps(connection, job_id, graph.steps, line=graph.line, slice_id=held.shard_id)
        else:
            _add_failed(connection, job_id, held.shard_id, graph)
    return True


def _add_failed(connection: Connection, job_id: str, slice_id: int, graph: Graph) -> None:
    """Keeps the reason as a step that has failed, for the row's line and for whoever looks."""
    connection.execute(
        _ADD_FAILED,
        {
            "job": job_id,
            "line": graph.line,
            "slice": slice_id,
            "first": graph.line * ORDINALS_PER_LINE,
            "pool": UPKEEP,
            "endpoint": graph.endpoint,
            "name": PLAN,
            "code": graph.error_code,
            "message": graph.error_message,
        },
    )
