"""Sessions: one lease per worker process, its renewal, its end, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import FENCE_MANY, Held
from shared.lifecycle.graphs import GRAPH_ENDED, STOPPING
from shared.lifecycle.pause import block_paused
from shared.lifecycle.settle import MAX_LOSSES, ClosedShard, back_to_queued, settle_closed
from shared.states import ShardState, Stage, StopReason, guard

_OPEN = text("""
INSERT INTO sessions (id, host, pid, pools, detail, expires_at)
VALUES (:id, :host, :pid, :pools, CAST(:detail AS json),
        clock_timestamp() + make_interval(secs => CAST(:ttl AS double precision)))
""")

_HEARTBEAT = text("""
UPDATE sessions
   SET expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl AS double precision))
 WHERE id = :me AND expires_at IS NOT NULL RETURNING 1
""")

_EXPIRED = text("""
SELECT (SELECT count(*) FROM sessions WHERE expires_at IS NOT NULL) AS alive,
       coalesce(array_agg(id), '{}') AS expired
  FROM sessions WHERE expires_at < clock_timestamp()
""")

_DECLARE_DEAD = text("""
UPDATE sessions SET expires_at = NULL, ended_at = clock_timestamp()
 WHERE id = ANY(:ids) AND expires_at < clock_timestamp()
""")

# Joins every dead session on every pass: a claim that saw its session alive may commit after the
# session was declared dead, and would otherwise be held by nobody for ever.
_RECOVER = text(f"""
WITH lost AS (
    SELECT s.id FROM shards s JOIN sessions w ON w.id = s.session_id
     WHERE s.state = 'running' AND w.expires_at IS NULL
     LIMIT :limit FOR UPDATE OF s SKIP LOCKED)
UPDATE shards s
   SET state = CASE
           WHEN {STOPPING} OR {GRAPH_ENDED} THEN 'cancelled'
           WHEN s.lost_n + 1 >= {MAX_LOSSES} THEN 'failed'
           ELSE 'ready' END,
       suspect = s.suspect OR s.lost_n >= 1, lost_n = s.lost_n + 1,
       error_code = 'worker_lost', error_message = 'the worker that ran this vanished',
       rows_completed = 0, rows_failed = 0, not_before = clock_timestamp()
  FROM lost, jobs j
 WHERE s.id = lost.id AND j.id = s.job_id AND {guard("s.state", ShardState.SUCCEEDED)}
RETURNING s.id, s.job_id, j.kind, s.stage, s.state, s.pool
""")

_PROGRESS = text(f"""
UPDATE shards s SET rows_completed = d.completed, rows_failed = d.failed
  FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS int[]), CAST(:completed AS int[]),
              CAST(:failed AS int[])) AS d (id, epoch, completed, failed)
 WHERE s.id = d.id AND {FENCE_MANY}
""")

_WATCH = text(f"""
SELECT s.id, s.epoch,
       CASE WHEN {STOPPING} THEN j.stop_reason
            WHEN s.stage = 'step' AND {GRAPH_ENDED} THEN 'cancelled' END,
       s.stage = 'train' AND j.paused_at IS NOT NULL
  FROM shards s JOIN jobs j ON j.id = s.job_id
 WHERE s.session_id = :me AND s.state = 'running'
""")


@dataclass(frozen=True, slots=True)
class Watched:
    """A shard this session still holds, and whether it is to stop: its job was asked to, or its
    graph has its outcome already."""

    held: Held
    stop_reason: StopReason | None
    paused: bool = False
    """A training whose job is paused: save a checkpoint and give it back."""


def open_session(
    connection: Connection,
    *,
    session_id: str,
    host: str,
    pid: int,
    pools: Sequence[str],
    ttl_seconds: float,
    detail: dict[str, Any] | None = None,
) -> None:
    """Registers a worker process; its lease runs from now."""
    connection.execute(
        _OPEN,
        {
            "id": session_id,
            "host": host,
            "pid": pid,
            "pools": list(pools),
            "detail": json.dumps(detail or {}),
            "ttl": ttl_seconds,
        },
    )


def heartbeat(connection: Connection, session_id: str, *, ttl_seconds: float) -> bool:
    """Renews the lease. False is proof that the session was declared dead."""
    values = {"me": session_id, "ttl": ttl_seconds}
    return connection.execute(_HEARTBEAT, values).scalar() is not None


def drain_session(connection: Connection, session_id: str) -> None:
    """From here on the session claims nothing more."""
    connection.execute(
        text("UPDATE sessions SET draining = true WHERE id = :me"), {"me": session_id}
    )


def close_session(connection: Connection, session_id: str) -> None:
    """Ends the session; whatever it still holds is recovered by the reaper."""
    connection.execute(
        text(
            "UPDATE sessions SET expires_at = NULL, draining = true, ended_at = clock_timestamp()"
            " WHERE id = :me AND expires_at IS NOT NULL"
        ),
        {"me": session_id},
    )


def expired_sessions(connection: Connection) -> tuple[list[str], int]:
    """The sessions whose lease has run out, and how many are not declared dead in all."""
    row = connection.execute(_EXPIRED).one()
    return list(row.expired), int(row.alive)


def declare_dead(connection: Connection, session_ids: Sequence[str]) -> int:
    """Ends leases that are still expired as of now; one renewed meanwhile is spared."""
    return connection.execute(_DECLARE_DEAD, {"ids": list(session_ids)}).rowcount


def recover_lost(connection: Connection, *, limit: int = 500) -> list[str]:
    """Takes shards back from dead sessions; returns the pools that have work again."""
    rows = connection.execute(_RECOVER, {"limit": limit}).all()
    ready = [row for row in rows if row.state == ShardState.READY]
    back_to_queued(connection, (row.job_id for row in ready))
    trainings = {row.job_id for row in ready if row.stage == Stage.TRAIN}
    paused = block_paused(connection, trainings) if trainings else set()
    settle_closed(
        connection,
        [
            ClosedShard(
                row.id,
                row.job_id,
                row.kind,
                row.stage,
                ShardState(row.state),
                "worker_lost" if row.state == ShardState.FAILED else None,
                f"the worker vanished {MAX_LOSSES} times while it ran this"
                if row.state == ShardState.FAILED
                else None,
            )
            for row in rows
            if row.state != ShardState.READY
        ],
    )
    return sorted({row.pool for row in ready if row.job_id not in paused})


def report_progress(
    connection: Connection, session_id: str, progress: dict[Held, tuple[int, int]]
) -> None:
    """Writes (rows completed, rows failed) of running shards; zombies' rows match nothing."""
    connection.execute(
        _PROGRESS,
        {
            "me": session_id,
            "ids": [held.shard_id for held in progress],
            "epochs": [held.epoch for held in progress],
            "completed": [done for done, _ in progress.values()],
            "failed": [failed for _, failed in progress.values()],
        },
    )


def watch(connection: Connection, session_id: str) -> list[Watched]:
    """Every shard this session holds; one that is missing was taken away."""
    rows = connection.execute(_WATCH, {"me": session_id})
    return [
        Watched(Held(shard_id, epoch), StopReason(reason) if reason else None, paused)
        for shard_id, epoch, reason, paused in rows
    ]
