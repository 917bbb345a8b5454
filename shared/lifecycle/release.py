"""Giving a shard back unfinished, with the right budget charged."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Connection, text

from shared.lifecycle.fence import FENCE, Held, count_zombies
from shared.lifecycle.graphs import GRAPH_ENDED, STOPPING
from shared.lifecycle.pause import block_paused
from shared.lifecycle.settle import (
    MAX_CRASHES,
    MAX_ERRORS,
    ClosedShard,
    back_to_queued,
    settle_closed,
)
from shared.states import ShardState, Stage


class ReleaseReason(StrEnum):
    """Why a worker gives a shard back."""

    PREEMPTED = "preempted"
    """The worker drains or needs the engine for something else; nobody's fault, no limit."""
    SUSPECT = "suspect"
    """An engine crashed while the shard was in it together with others: try it alone."""
    CRASHED = "crashed"
    """The engine crashed with this shard's row alone in it."""
    ERROR = "error"
    """A handled failure: storage refused, the input slice could not be read."""


_RELEASE = text(f"""
UPDATE shards s
   SET preempt_n = s.preempt_n + CASE :reason WHEN 'preempted' THEN 1 ELSE 0 END,
       crash_n = s.crash_n + CASE :reason WHEN 'crashed' THEN 1 ELSE 0 END,
       error_n = s.error_n + CASE :reason WHEN 'error' THEN 1 ELSE 0 END,
       suspect = s.suspect OR :reason IN ('suspect', 'crashed'),
       state = CASE
           WHEN {STOPPING} OR {GRAPH_ENDED} THEN 'cancelled'
           WHEN :reason = 'crashed' AND s.crash_n + 1 >= {MAX_CRASHES} THEN 'failed'
           WHEN :reason = 'error' AND s.error_n + 1 >= {MAX_ERRORS} THEN 'failed'
           ELSE 'ready' END,
       error_code = :code, error_message = :message,
       not_before = clock_timestamp()
                    + make_interval(secs => CAST(:delay AS double precision)),
       ended_at = CASE WHEN :reason = 'error' AND s.error_n + 1 >= {MAX_ERRORS}
                         OR :reason = 'crashed' AND s.crash_n + 1 >= {MAX_CRASHES}
                         OR {STOPPING} OR {GRAPH_ENDED}
                       THEN clock_timestamp() END,
       rows_completed = 0, rows_failed = 0
  FROM jobs j
 WHERE j.id = s.job_id AND s.id = :id AND {FENCE}
RETURNING s.id, s.job_id, j.kind, s.stage, s.state, s.error_code, s.error_message
""")


def release(
    connection: Connection,
    session_id: str,
    held: Held,
    reason: ReleaseReason,
    *,
    code: str | None = None,
    message: str | None = None,
    delay_seconds: float = 0.0,
) -> ShardState | None:
    """Gives the shard back, or closes it when its budget is spent or its job was stopped.

    Returns its new state (``queued`` for a training whose job is paused), or None when it was not
    this session's any more.
    """
    row = connection.execute(
        _RELEASE,
        {
            "me": session_id,
            "id": held.shard_id,
            "epoch": held.epoch,
            "reason": str(reason),
            "code": code,
            "message": message,
            "delay": delay_seconds,
        },
    ).one_or_none()
    if row is None:
        count_zombies(connection, [held])
        return None
    state = ShardState(row.state)
    if state == ShardState.READY:
        back_to_queued(connection, [row.job_id])
        if row.stage == Stage.TRAIN and block_paused(connection, [row.job_id]):
            return ShardState.QUEUED
    else:
        settle_closed(
            connection,
            [
                ClosedShard(
                    row.id,
                    row.job_id,
                    row.kind,
                    row.stage,
                    state,
                    row.error_code,
                    row.error_message,
                )
            ],
        )
    return state
