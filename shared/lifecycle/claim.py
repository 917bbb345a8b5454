"""From ready to held: the claim."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.fairness import choose
from shared.lifecycle.fence import Held
from shared.lifecycle.taking import (
    ALIVE,
    BEGIN,
    CLAIMED,
    COLUMNS,
    START,
    STATE,
    WORK,
    run,
)
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


def _capped(tenants: str) -> str:
    """Whether one of ``tenants`` may not have more than so much running."""
    return f"""EXISTS (SELECT 1 FROM tenants t
                           WHERE t.id = {tenants} AND t.max_running_shards IS NOT NULL)"""


# While all that waits fits into this worker there is nothing to choose, nor to count. It is the
# claim of a job on an idle system, and the poll of an idle worker: what is not needed for those is
# not in here, since Postgres prepares every node of a plan each time that it runs.
_CLAIM_ALL = text(f"""
WITH line AS (
    SELECT id, tenant_id, row_count, model FROM shards
     WHERE state = 'ready' AND pool = :pool AND not_before <= clock_timestamp()
     ORDER BY ready_seq LIMIT :max_shards + 1
), gate AS (
    SELECT count(*) > 0 AS waits,
           CASE WHEN count(*) BETWEEN 1 AND :max_shards AND sum(row_count) <= :max_rows
                THEN {_end_of_line("queued")} IS NULL
                     AND NOT {_capped("ANY (ARRAY(SELECT tenant_id FROM line))")}
                ELSE false END AS fits,
           CASE WHEN min(tenant_id) = max(tenant_id)
                 AND min(coalesce(model, '')) = max(coalesce(model, ''))
                THEN min(tenant_id) END AS alone
      FROM line
), locked AS (
    SELECT s.id FROM shards s
     WHERE s.id = ANY (ARRAY(SELECT id FROM line WHERE (SELECT fits FROM gate)))
       AND {STATE} = 'ready' AND {ALIVE}
       FOR UPDATE SKIP LOCKED
), claimed AS (
    {run("locked")}
    RETURNING s.*
), started AS (
    {START}
)
SELECT gate.waits AND NOT gate.fits, gate.alone, c.priority, c.ready_seq, {COLUMNS}
  FROM gate LEFT JOIN ({CLAIMED}) ON true
""")
_FACTS = 4
"""Columns of ``_CLAIM_ALL`` before those of the claim."""

# One tenant alone waits in the pool, for one model: its own priorities decide. What it leaves
# waiting is counted: who comes next goes before it.
_CLAIM_ALONE = text(f"""
WITH gate AS (
    SELECT CAST(:tenant AS text) = ALL (ARRAY[
               {_end_of_line("ready")},
               {_end_of_line("ready", "DESC")},
               coalesce({_end_of_line("queued")}, :tenant),
               coalesce({_end_of_line("queued", "DESC")}, :tenant)])
           AND NOT {_capped(":tenant")} AS free
), candidate AS (
    SELECT s.id, s.row_count, s.priority, s.ready_seq FROM shards s
     WHERE s.state = 'ready' AND s.pool = :pool AND s.tenant_id = :tenant
       AND s.not_before <= clock_timestamp() AND (SELECT free FROM gate)
     ORDER BY s.priority, s.ready_seq LIMIT :max_shards FOR UPDATE SKIP LOCKED
), budget AS (
    SELECT id, row_number() OVER line AS place,
           sum(row_count) OVER line - row_count AS rows_before
      FROM candidate WINDOW line AS (ORDER BY priority, ready_seq)
), claimed AS (
    {BEGIN}
    RETURNING s.*, budget.place
), given AS (
    SELECT sum({WORK}) / (SELECT weight FROM tenants WHERE id = :tenant) AS time,
           greatest((SELECT max(virtual_time) FROM shares
                      WHERE pool = :pool AND tenant_id IN ('', :tenant)), 0) AS start
      FROM claimed HAVING count(*) > 0
), advanced AS (
    INSERT INTO shares (pool, tenant_id, virtual_time)
    SELECT :pool, '', start FROM given
    UNION ALL SELECT :pool, :tenant, start + time FROM given
        ON CONFLICT (pool, tenant_id) DO UPDATE
       SET virtual_time = greatest(excluded.virtual_time, shares.virtual_time
                + CASE excluded.tenant_id WHEN '' THEN 0 ELSE (SELECT time FROM given) END)
    RETURNING 1
), started AS (
    {START} AND (SELECT count(*) FROM advanced) >= 0
)
SELECT gate.free, {COLUMNS}
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
    apart: Collection[str] = (),
) -> list[Claim]:
    """Takes up to ``max_shards`` ready shards, stopping once ``max_rows`` rows are taken: those of
    the tenants whose turn it is, models that are ``loaded`` first where that is fair. Nothing of
    tenants that are ``apart``: the caller has enough of theirs.

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
            apart,
        )
        rows = sum(claim.row_count for claim in taken)
    return taken


def _claim_of(
    connection: Connection,
    values: dict[str, Any],
    loaded: Collection[str],
    apart: Collection[str],
) -> list[Claim]:
    """Of one pool; ``values`` are those of ``_CLAIM_ALL``."""
    if apart:
        return _claim_in_turn(connection, values, loaded, apart)
    found = connection.execute(_CLAIM_ALL, values).all()
    competed, alone, *_ = found[0]
    if not competed:
        return _in_places(found)
    if alone is not None:
        taken = connection.execute(_CLAIM_ALONE, values | {"tenant": alone}).all()
        if taken[0][0]:
            return [Claim(*row[1:]) for row in taken if row[1] is not None]
    return _claim_in_turn(connection, values, loaded)


def _in_places(found: Sequence[Sequence[Any]]) -> list[Claim]:
    """The line of ready shards gives each tenant its places; which of its shards stands in which of
    them goes by its own priorities."""
    by_place = sorted((row for row in found if row[_FACTS] is not None), key=lambda row: row[3])
    claims = [Claim(*row[_FACTS:]) for row in by_place]
    ranks = sorted(range(len(claims)), key=lambda place: (by_place[place][2], place))
    own: dict[str, deque[Claim]] = defaultdict(deque)
    for place in ranks:
        own[claims[place].tenant_id].append(claims[place])
    return [own[claim.tenant_id].popleft() for claim in claims]


def _claim_in_turn(
    connection: Connection,
    values: dict[str, Any],
    loaded: Collection[str],
    apart: Collection[str] = (),
) -> list[Claim]:
    """While tenants compete, or one has a cap: what is fair is decided by ``shared.fairness``."""
    taken: list[Claim] = []
    near = set(loaded)
    for _ in range(ROUNDS):
        shards, rows = values["max_shards"], values["max_rows"]
        line = read_line(connection, values["pool"])
        picks = choose(
            [tenant for tenant in line.tenants if tenant.tenant_id not in apart],
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
