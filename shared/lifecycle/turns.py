"""Claims while tenants compete: a look at who waits, a choice, and taking what was chosen.

Three statements instead of one, so that what is fair can be decided by ``shared.fairness``. Between
them others claim too. What they took is skipped, virtual times are moved on by what was really
taken, and a tenant with a cap is left out when anybody claimed something of it since the look.

Locks come in this order: caps, shards (skipping), shares by pool and tenant, jobs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.fairness import InLine, Pick, Waiting
from shared.lifecycle.taking import BEGIN, CLAIMED, COLUMNS, START, STATE, WORK

MOST_TENANTS = 64
"""Of those that wait, the ones with the least virtual time are looked at."""
MOST_SHARDS = 256
"""That are looked at, shared out among them."""
LEAST_DEPTH = 8
MOST_DEPTH = 96
"""Of one tenant."""

# A loose index scan: one probe per tenant that waits, however many shards each has.
_LINE = text("""
WITH RECURSIVE waiting (tenant_id) AS (
    (SELECT tenant_id FROM shards
      WHERE pool = :pool AND state = 'ready' AND not_before <= clock_timestamp()
      ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT s.tenant_id FROM shards s
             WHERE s.pool = :pool AND s.state = 'ready' AND s.not_before <= clock_timestamp()
               AND s.tenant_id > w.tenant_id
             ORDER BY s.tenant_id LIMIT 1)
      FROM waiting w WHERE w.tenant_id IS NOT NULL
), clock AS (
    SELECT coalesce((SELECT virtual_time FROM shares WHERE pool = :pool AND tenant_id = ''), 0)
           AS pool_time
), running AS (
    SELECT tenant_id, count(*) AS n, count(*) FILTER (WHERE pool = :pool) AS here
      FROM shards WHERE state = 'running' GROUP BY tenant_id
), turn AS (
    SELECT t.id AS tenant_id, t.weight, clock.pool_time, count(*) OVER () AS tenants,
           greatest(coalesce(mine.virtual_time, 0), clock.pool_time) AS start,
           coalesce(running.here, 0) > 0 AS served,
           t.max_running_shards - coalesce(running.n, 0) AS room,
           CASE WHEN t.max_running_shards IS NOT NULL THEN coalesce((
               SELECT virtual_time FROM shares cap WHERE cap.pool = '' AND cap.tenant_id = t.id), 0)
               END AS claims
      FROM waiting w JOIN tenants t ON t.id = w.tenant_id CROSS JOIN clock
      LEFT JOIN shares mine ON mine.pool = :pool AND mine.tenant_id = t.id
      LEFT JOIN running ON running.tenant_id = t.id
     WHERE t.max_running_shards IS NULL OR t.max_running_shards > coalesce(running.n, 0)
     ORDER BY start, t.id LIMIT :most_tenants
), sized AS (
    SELECT turn.*, least(:most_depth, greatest(
               :least_depth, :most_shards / least(tenants, :most_tenants))) AS depth
      FROM turn
)
SELECT z.tenant_id, z.weight, z.start, z.pool_time, z.served, z.room, z.claims, z.depth,
       (SELECT true FROM shards q WHERE q.pool = :pool AND q.tenant_id = z.tenant_id
           AND q.state = 'queued' AND q.blocked_n = 0
         ORDER BY q.priority, q.id LIMIT 1) IS NOT NULL AS queued,
       n.id, n.row_count, n.work, n.model, n.priority, n.ready_seq,
       n.model IN (SELECT model FROM shards WHERE state = 'running' AND pool = :pool
                      AND model IS NOT NULL) AS in_use
  FROM sized z CROSS JOIN LATERAL (
       SELECT s.id, s.row_count, coalesce(nullif(s.expected_seconds, 0), s.row_count, 1) AS work,
              s.model, s.priority, s.ready_seq
         FROM shards s
        WHERE s.pool = :pool AND s.tenant_id = z.tenant_id AND s.state = 'ready'
          AND s.not_before <= clock_timestamp()
        ORDER BY s.priority, s.ready_seq LIMIT z.depth) n
 ORDER BY z.start, z.tenant_id, n.priority, n.ready_seq
""")

# A tenant with a cap is claimed from by one session at a time: the row that counts its claims says
# whether anybody else was quicker since the line-up was read, and then its shards stay.
_TAKE = text(f"""
WITH capped AS (
    SELECT * FROM unnest(CAST(:capped AS text[]), CAST(:claims AS double precision[]))
        AS c (tenant_id, claims)
), first AS (
    INSERT INTO shares (pool, tenant_id, virtual_time)
    SELECT '', tenant_id, claims + 1 FROM capped ORDER BY tenant_id
        ON CONFLICT (pool, tenant_id) DO UPDATE SET virtual_time = excluded.virtual_time
     WHERE shares.virtual_time = excluded.virtual_time - 1
    RETURNING tenant_id
), chosen AS (
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:pool_times AS double precision[]),
                         CAST(:starts AS double precision[])) WITH ORDINALITY
        AS c (id, pool_time, start, place)
), locked AS (
    SELECT s.id, s.row_count, c.place, c.pool_time
      FROM chosen c JOIN shards s ON s.id = c.id
     WHERE s.id = ANY (:ids) AND {STATE} = 'ready' AND (NOT s.tenant_id = ANY(:capped)
                                  OR s.tenant_id IN (SELECT tenant_id FROM first))
     ORDER BY c.place LIMIT :max_shards FOR UPDATE OF s SKIP LOCKED
), budget AS (
    SELECT id, place, pool_time, sum(row_count) OVER (ORDER BY place) - row_count AS rows_before
      FROM locked
), claimed AS (
    {BEGIN}
    RETURNING s.*, budget.place, budget.pool_time
), given AS (
    SELECT g.tenant_id, g.work / t.weight AS time, start.start
      FROM (SELECT tenant_id, min(place) AS place,
                   sum({WORK}) AS work
              FROM claimed GROUP BY tenant_id) g
      JOIN tenants t ON t.id = g.tenant_id JOIN chosen start USING (place)
    UNION ALL
    SELECT '', 0, max(pool_time) FROM claimed HAVING count(*) > 0
), advanced AS (
    INSERT INTO shares (pool, tenant_id, virtual_time)
    SELECT :pool, tenant_id, start + time FROM given ORDER BY tenant_id
        ON CONFLICT (pool, tenant_id) DO UPDATE
       SET virtual_time = greatest(excluded.virtual_time, shares.virtual_time
                + (SELECT time FROM given WHERE given.tenant_id = excluded.tenant_id))
    RETURNING 1
), started AS (
    {START} AND (SELECT count(*) FROM advanced) >= 0
)
SELECT {COLUMNS} FROM {CLAIMED} ORDER BY c.place
""")


@dataclass(frozen=True, slots=True)
class LineUp:
    """Who waits in a pool, as one statement saw it."""

    tenants: Sequence[InLine]
    pool_time: float
    in_use: Collection[str]
    """Models of shards that run in the pool, and are waited for."""
    claims: Mapping[str, float]
    """Of tenants with a cap: how often somebody has claimed from them."""


def read_line(connection: Connection, pool: str) -> LineUp:
    """The tenants with ready shards in a pool, those with the least virtual time first."""
    rows = connection.execute(
        _LINE,
        {
            "pool": pool,
            "most_tenants": MOST_TENANTS,
            "most_shards": MOST_SHARDS,
            "least_depth": LEAST_DEPTH,
            "most_depth": MOST_DEPTH,
        },
    ).all()
    grouped: dict[str, list[Row[Any]]] = {}
    for row in rows:
        grouped.setdefault(row.tenant_id, []).append(row)
    return LineUp(
        [_in_line(members) for members in grouped.values()],
        rows[0].pool_time if rows else 0.0,
        {row.model for row in rows if row.in_use},
        {row.tenant_id: row.claims for row in rows if row.claims is not None},
    )


def _in_line(rows: Sequence[Row[Any]]) -> InLine:
    tenant = rows[0]
    return InLine(
        tenant.tenant_id,
        tenant.weight,
        tenant.start,
        tenant.served,
        tenant.room,
        [Waiting(r.id, r.row_count, r.work, r.model, r.priority, r.ready_seq) for r in rows],
        more=tenant.queued or len(rows) == tenant.depth,
    )


def take(
    connection: Connection,
    line: LineUp,
    picks: Sequence[Pick],
    *,
    values: Mapping[str, object],
) -> Sequence[Sequence[Any]]:
    """Claims the picks that nobody else has taken, and returns rows of ``COLUMNS``; ``values`` are
    the claim's own."""
    tenants = {pick.tenant_id for pick in picks}
    capped = [tenant for tenant in line.claims if tenant in tenants]
    return connection.execute(
        _TAKE,
        {
            **values,
            "ids": [pick.shard.shard_id for pick in picks],
            "pool_times": [pick.pool_time for pick in picks],
            "starts": [pick.start for pick in picks],
            "capped": capped,
            "claims": [line.claims[tenant] for tenant in capped],
        },
    ).all()
