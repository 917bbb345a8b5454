"""From waiting to held: the fair ready window, and the claim."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.lifecycle.fence import Held
from shared.pools import UPKEEP
from shared.states import JobState, ShardState, StopReason, guard


@dataclass(frozen=True, slots=True)
class Claim:
    """A shard held by this session, with what is needed to run it."""

    shard_id: int
    epoch: int
    job_id: str
    tenant_id: str
    kind: str
    pool: str
    stage: str
    ordinal: int
    endpoint: str
    model: str | None
    spec: str
    """The job's spec as JSON."""
    row_count: int
    byte_start: int | None
    byte_end: int | None
    first_line: int | None
    suspect: bool
    """It was running when an engine crashed: run it alone, one row at a time."""
    crash_n: int
    input_key: str | None
    """Storage key of a batch's input file, or of a fine-tuning's training file."""
    stop_reason: StopReason | None
    lines: Sequence[int] | None = None
    """A slice's line numbers, where lines between them belong to other pools' slices."""
    step: str | None = None
    """The name of a step; ``endpoint``, ``model`` and ``spec`` are then the step's own, the spec
    with references to other steps (``worker.steps.read_step`` completes it)."""
    step_line: int = 0
    """The batch row that a step works for; 0 when it is the job itself."""
    validation_key: str | None = None
    """Storage key of a fine-tuning's validation file, where it was given one."""
    detail: str = "{}"
    """What is known of the job, as JSON: of a fine-tuning its data and its training so far, of a
    batch who held the aliases that its rows name."""

    @property
    def held(self) -> Held:
        return Held(self.shard_id, self.epoch)

    def models(self) -> dict[str, str]:
        """What the rows of a batch mean by an alias: the model that held it at validation."""
        found: dict[str, str] = json.loads(self.detail).get("models", {})
        return found


# A loose index scan: one probe per tenant that waits, however many shards each has.
_DISPATCH = text(f"""
WITH RECURSIVE waiting (tenant_id) AS (
    (SELECT tenant_id FROM shards WHERE pool = :pool AND state = 'queued' AND blocked_n = 0
      ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT s.tenant_id FROM shards s
             WHERE s.pool = :pool AND s.state = 'queued' AND s.blocked_n = 0
               AND s.tenant_id > w.tenant_id
             ORDER BY s.tenant_id LIMIT 1)
      FROM waiting w WHERE w.tenant_id IS NOT NULL
), picked AS (
    SELECT next.id, next.turn
      FROM waiting w
     CROSS JOIN LATERAL (
           SELECT greatest(0, :window - count(*)) AS free FROM shards r
            WHERE r.pool = :pool AND r.tenant_id = w.tenant_id AND r.state = 'ready') room
     CROSS JOIN LATERAL (
           SELECT held.id, row_number() OVER (ORDER BY held.priority, held.id) AS turn
             FROM (SELECT q.id, q.priority FROM shards q
                    WHERE q.pool = :pool AND q.tenant_id = w.tenant_id AND q.state = 'queued'
                      AND q.blocked_n = 0
                    ORDER BY q.priority, q.id LIMIT room.free FOR UPDATE SKIP LOCKED) held) next
     WHERE w.tenant_id IS NOT NULL
), in_turn AS (
    SELECT id, nextval('ready_seq') AS seq FROM (SELECT id FROM picked ORDER BY turn, id) o
)
UPDATE shards s SET state = 'ready', ready_seq = in_turn.seq
  FROM in_turn WHERE s.id = in_turn.id AND {guard("s.state", ShardState.READY)}
""")

# Two dispatchers that count the same window would both fill it. The one that comes second leaves
# the pool to the first; nothing to move, no lock.
_TURN = text("""
SELECT pg_try_advisory_xact_lock(:lock, hashtext(:pool))
 WHERE EXISTS (SELECT 1 FROM shards WHERE pool = :pool AND state = 'queued' AND blocked_n = 0)
""")
_TURN_LOCK = 7_703_002

# The line of ready shards gives each tenant its places; which of its shards stands in which of them
# is the tenant's own business: its priorities reorder its places and nobody else's.
_CLAIM = text(f"""
WITH place AS (
    SELECT pool, tenant_id, ready_seq,
           row_number() OVER (PARTITION BY pool, tenant_id ORDER BY ready_seq) AS turn
      FROM (SELECT pool, tenant_id, ready_seq FROM shards
             WHERE state = 'ready' AND pool = ANY(:pools) AND not_before <= clock_timestamp()
             ORDER BY ready_seq LIMIT :max_shards) line
), share AS (
    SELECT pool, tenant_id, count(*) AS places FROM place GROUP BY pool, tenant_id
), candidate AS (
    SELECT chosen.id, chosen.row_count, share.pool, share.tenant_id,
           row_number() OVER (PARTITION BY share.pool, share.tenant_id
                              ORDER BY chosen.priority, chosen.ready_seq) AS turn
      FROM share CROSS JOIN LATERAL (
           SELECT s.id, s.row_count, s.priority, s.ready_seq FROM shards s
            WHERE s.state = 'ready' AND s.pool = share.pool AND s.tenant_id = share.tenant_id
              AND s.not_before <= clock_timestamp()
            ORDER BY s.priority, s.ready_seq LIMIT share.places
              FOR UPDATE SKIP LOCKED) chosen
), budget AS (
    SELECT c.id, place.ready_seq AS place,
           sum(c.row_count) OVER (ORDER BY place.ready_seq) - c.row_count AS rows_before
      FROM candidate c JOIN place USING (pool, tenant_id, turn)
), claimed AS (
    UPDATE shards s
       SET state = 'running', epoch = s.epoch + 1, session_id = :me,
           started_at = clock_timestamp(), progress = NULL,
           rows_completed = CASE s.pool WHEN :upkeep THEN s.rows_completed ELSE 0 END,
           rows_failed = CASE s.pool WHEN :upkeep THEN s.rows_failed ELSE 0 END
      FROM budget
     WHERE s.id = budget.id AND budget.rows_before < :max_rows
       AND {guard("s.state", ShardState.RUNNING)}
       AND EXISTS (SELECT 1 FROM sessions w
                    WHERE w.id = :me AND w.expires_at > clock_timestamp() AND NOT w.draining)
    RETURNING s.*, budget.place
), started AS (
    UPDATE jobs j SET state = 'running', version = j.version + 1,
           started_at = coalesce(j.started_at, clock_timestamp())
      FROM claimed WHERE j.id = claimed.job_id AND {guard("j.state", JobState.RUNNING)}
)
SELECT c.id, c.epoch, c.job_id, c.tenant_id, j.kind, c.pool, c.stage, c.ordinal,
       coalesce(t.endpoint, j.endpoint), CASE c.stage WHEN 'step' THEN t.model ELSE j.model END,
       CAST(coalesce(t.spec, j.spec) AS text), c.row_count, c.byte_start, c.byte_end,
       c.first_line, c.suspect, c.crash_n, f.storage_key, j.stop_reason, c.lines, t.name,
       coalesce(t.line, 0), v.storage_key, CAST(j.detail AS text)
  FROM claimed c JOIN jobs j ON j.id = c.job_id LEFT JOIN files f ON f.id = j.input_file_id
  LEFT JOIN files v ON v.id = j.validation_file_id
  LEFT JOIN steps t ON t.shard_id = c.id
 ORDER BY c.place
""")


def dispatch(connection: Connection, *, pool: str, window: int) -> int:
    """Moves waiting shards into the ready window, tenants taking turns; returns how many.

    It fills a tenant's window in a pool to ``window`` ready shards, whatever the tenant has
    submitted; shards that came back may be ready on top of that. Any number of processes may run
    it, each in a transaction (not autocommit): the pool's turn ends with it.
    """
    if not connection.execute(_TURN, {"lock": _TURN_LOCK, "pool": pool}).scalar():
        return 0
    return connection.execute(_DISPATCH, {"pool": pool, "window": window}).rowcount


def claim(
    connection: Connection,
    *,
    session_id: str,
    pools: Sequence[str],
    max_shards: int,
    max_rows: int,
) -> list[Claim]:
    """Takes up to ``max_shards`` ready shards, stopping once ``max_rows`` rows are taken.

    A dead or draining session gets nothing.
    """
    rows = connection.execute(
        _CLAIM,
        {
            "me": session_id,
            "pools": list(pools),
            "max_shards": max_shards,
            "max_rows": max_rows,
            "upkeep": UPKEEP,
        },
    )
    return [Claim(*row) for row in rows]
