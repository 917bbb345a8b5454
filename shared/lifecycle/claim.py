"""From ready to held: the claim."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.fairness import choose
from shared.lifecycle.fence import Held
from shared.lifecycle.taking import BEGIN, CLAIMED, COLUMNS, START, WORK
from shared.lifecycle.turns import read_line, take
from shared.pools import UPKEEP
from shared.states import StopReason

ROUNDS = 4
"""Looks at the line-up in one claim: again where others were quicker."""
SPARE = 8
"""Shards that are chosen on top of the room: others may be about to take the first ones."""


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


def _end_of_line(state: str, side: str = "ASC") -> str:
    """The first or last tenant of whom shards in ``state`` wait in the pool, or null. Ordered, so
    that it is one probe of an index whatever the planner expects to find."""
    return f"""(SELECT w.tenant_id FROM shards w
                  WHERE w.pool = :pool AND w.state = '{state}' AND w.blocked_n = 0
                  ORDER BY w.tenant_id {side} LIMIT 1)"""


# While nobody has to give way there is nothing to choose: one tenant alone waits in the pool, for
# one model, or all that waits fits into this worker. What a tenant alone leaves waiting is counted:
# who comes next goes before it. The line of ready shards gives each tenant its
# places; which of its shards stands in which of them goes by its own priorities.
_CLAIM_ALL = text(f"""
WITH line AS (
    SELECT tenant_id, ready_seq, row_count, model FROM shards
     WHERE state = 'ready' AND pool = :pool AND not_before <= clock_timestamp()
     ORDER BY ready_seq LIMIT :max_shards + 1
), facts AS (
    SELECT count(*) AS n, min(tenant_id) AS one, max(tenant_id) AS other,
           count(DISTINCT coalesce(model, '')) AS models, sum(row_count) AS rows
      FROM line
), gate AS (
    SELECT n > 0 AS waits, fits,
           (fits OR one = other AND models = 1 AND one = ALL (ARRAY[
               {_end_of_line("ready")},
               {_end_of_line("ready", "DESC")},
               coalesce({_end_of_line("queued")}, one),
               coalesce({_end_of_line("queued", "DESC")}, one)]))
           AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id IN (SELECT tenant_id FROM line)
                              AND t.max_running_shards IS NOT NULL) AS free
      FROM (SELECT facts.*, n <= :max_shards AND rows <= :max_rows
                            AND {_end_of_line("queued")} IS NULL AS fits FROM facts) facts
), place AS (
    SELECT tenant_id, ready_seq,
           row_number() OVER (PARTITION BY tenant_id ORDER BY ready_seq) AS turn
      FROM (SELECT * FROM line ORDER BY ready_seq LIMIT :max_shards) l
     WHERE (SELECT free FROM gate)
), share AS (
    SELECT tenant_id, count(*) AS places FROM place GROUP BY tenant_id
), candidate AS (
    SELECT chosen.id, chosen.row_count, share.tenant_id,
           row_number() OVER (PARTITION BY share.tenant_id
                              ORDER BY chosen.priority, chosen.ready_seq) AS turn
      FROM share CROSS JOIN LATERAL (
           SELECT s.id, s.row_count, s.priority, s.ready_seq FROM shards s
            WHERE s.state = 'ready' AND s.pool = :pool AND s.tenant_id = share.tenant_id
              AND s.not_before <= clock_timestamp()
            ORDER BY s.priority, s.ready_seq LIMIT share.places
              FOR UPDATE SKIP LOCKED) chosen
), budget AS (
    SELECT c.id, place.ready_seq AS place,
           sum(c.row_count) OVER (ORDER BY place.ready_seq) - c.row_count AS rows_before
      FROM candidate c JOIN place USING (tenant_id, turn)
), claimed AS (
    {BEGIN}
    RETURNING s.*, budget.place
), given AS (
    SELECT c.tenant_id, sum({WORK}) / max(t.weight) AS time,
           greatest(max(mine.virtual_time), max(pool.virtual_time), 0) AS start
      FROM claimed c JOIN tenants t ON t.id = c.tenant_id
      LEFT JOIN shares mine ON mine.pool = :pool AND mine.tenant_id = c.tenant_id
      LEFT JOIN shares pool ON pool.pool = :pool AND pool.tenant_id = ''
     WHERE NOT (SELECT fits FROM gate)
     GROUP BY c.tenant_id
), advanced AS (
    INSERT INTO shares (pool, tenant_id, virtual_time)
    SELECT :pool, '', start FROM given
    UNION ALL SELECT :pool, tenant_id, start + time FROM given
        ON CONFLICT (pool, tenant_id) DO UPDATE
       SET virtual_time = greatest(excluded.virtual_time, shares.virtual_time
                + CASE excluded.tenant_id WHEN '' THEN 0 ELSE (SELECT time FROM given) END)
    RETURNING 1
), started AS (
    {START} AND (SELECT count(*) FROM advanced) >= 0
)
SELECT gate.waits AND NOT gate.free, {COLUMNS}
  FROM gate LEFT JOIN ({CLAIMED}) ON true
 ORDER BY c.place
""")


def claim(
    connection: Connection,
    *,
    session_id: str,
    pools: Sequence[str],
    max_shards: int,
    max_rows: int,
    loaded: Collection[str] = (),
) -> list[Claim]:
    """Takes up to ``max_shards`` ready shards, stopping once ``max_rows`` rows are taken: those of
    the tenants whose turn it is, models that are ``loaded`` first where that is fair.

    Several pools are served in the order given. A dead or draining session gets nothing. For a
    connection in autocommit: each look at the line has to see what others took.
    """
    taken: list[Claim] = []
    rows = 0
    for pool in pools:
        if len(taken) >= max_shards or rows >= max_rows:
            break
        taken += _claim_of(
            connection,
            {
                "me": session_id,
                "pool": pool,
                "max_shards": max_shards - len(taken),
                "max_rows": max_rows - rows,
                "upkeep": UPKEEP,
            },
            loaded,
        )
        rows = sum(claim.row_count for claim in taken)
    return taken


def _claim_of(
    connection: Connection, values: dict[str, Any], loaded: Collection[str]
) -> list[Claim]:
    """Of one pool; ``values`` are those of ``_CLAIM_ALL``."""
    found = connection.execute(_CLAIM_ALL, values).all()
    if not found[0][0]:
        return [Claim(*row[1:]) for row in found if row[1] is not None]
    taken: list[Claim] = []
    near = set(loaded)
    for _ in range(ROUNDS):
        shards, rows = values["max_shards"], values["max_rows"]
        line = read_line(connection, values["pool"])
        picks = choose(
            line.tenants,
            pool_time=line.pool_time,
            max_shards=shards + SPARE,
            max_rows=rows + SPARE,
            loaded=near,
            in_use=line.in_use,
        )
        if not picks:
            break
        got = [Claim(*row) for row in take(connection, line, picks, values=values)]
        taken += got
        near.update(claim.model for claim in got if claim.model is not None)
        values["max_shards"] = shards - len(got)
        values["max_rows"] = rows - sum(claim.row_count for claim in got)
        if len(got) == len(picks) or values["max_shards"] <= 0 or values["max_rows"] <= 0:
            break
    return taken
