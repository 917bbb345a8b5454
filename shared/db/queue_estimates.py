"""What was measured lately and may be gone by: how fast a pool works, how much calls produce."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.db.job_rows import MAX_POSITION, rivals_ahead

WINDOW_SECONDS = 600
MOST_SHARDS = 500
"""That are looked at; the newest."""
LEAST_SHARDS = 3
"""Fewer say nothing about the next ones."""
LEAST_ROWS = 5


class Pace(NamedTuple):
    """What a pool that is served at this moment has done lately."""

    shards_a_second: float
    """While it had work: minutes without any don't count."""
    shard_seconds: float
    """How long one took, on average."""


# Here and below the clock is asked in a subquery: without one it may differ from row to row, bounds
# no scan of an index, and all that was ever done is read.
# Their times overlap as far as workers ran them together: the merged spans are when there was work.
_PACE = text(f"""
WITH done AS (
    SELECT started_at, ended_at FROM pool_work
     WHERE pool = :pool AND state IN ('succeeded', 'failed')
       AND ended_at > (SELECT clock_timestamp()) - interval '{WINDOW_SECONDS} s'
       AND started_at < ended_at
     ORDER BY ended_at DESC LIMIT {MOST_SHARDS}
)
SELECT count(*) AS shards,
       CAST(avg(extract(epoch FROM ended_at - started_at)) AS double precision) AS seconds,
       (SELECT CAST(sum(extract(epoch FROM upper(span) - lower(span))) AS double precision)
          FROM unnest((SELECT range_agg(tstzrange(started_at, ended_at)) FROM done)) AS span)
         AS busy,
       EXISTS (SELECT 1 FROM served_pools WHERE pool = :pool) AS served
  FROM done
""")


_LINE = text(f"""
SELECT own.n + {rivals_ahead(":pool", ":tenant", "own.n")}
  FROM (SELECT (SELECT count(*) FROM (SELECT 1 FROM shards
                               WHERE pool = :pool AND tenant_id = :tenant AND state = 'ready'
                               LIMIT {MAX_POSITION}) r)
             + (SELECT count(*) FROM (SELECT 1 FROM shards
                               WHERE pool = :pool AND tenant_id = :tenant AND state = 'queued'
                                 AND blocked_n = 0 LIMIT {MAX_POSITION}) q) AS n) own
""")

_UNSERVED = text("""
SELECT pool FROM unnest(CAST(:pools AS text[])) AS p (pool)
 WHERE pool NOT IN (SELECT pool FROM served_pools)
 ORDER BY pool
""")

_OUTPUT = text("""
SELECT sum(rows) AS rows, CAST(sum(output_tokens) AS double precision) AS tokens
  FROM (SELECT endpoint, model, rows, output_tokens FROM usage
         WHERE tenant_id = :tenant
           AND created_at > (SELECT clock_timestamp()) - interval '1 day'
         ORDER BY created_at DESC LIMIT 1000) recent
 WHERE endpoint = :endpoint AND model = :model
""")


def recent_pace(connection: Connection, pool: str) -> Pace | None:
    """None when nobody serves the pool, or too little ended in it lately to go by."""
    row = connection.execute(_PACE, {"pool": pool}).one()
    if not row.served or row.shards < LEAST_SHARDS or not row.busy:
        return None
    return Pace(row.shards / row.busy, row.seconds)


def places_ahead(connection: Connection, tenant_id: str, pool: str) -> int:
    """Of a shard that the tenant would add to the pool now; ``MAX_POSITION`` stands for more."""
    ahead: int = connection.execute(_LINE, {"pool": pool, "tenant": tenant_id}).scalar_one()
    return min(ahead, MAX_POSITION)


def unserved_pools(connection: Connection, pools: Collection[str]) -> list[str]:
    """Those of the pools that no worker serves at this moment."""
    return list(connection.execute(_UNSERVED, {"pools": list(pools)}).scalars())


def mean_output_tokens(
    connection: Connection, tenant_id: str, endpoint: str, model: str
) -> float | None:
    """Of the tenant's newest rows of a day; None when there were too few to go by."""
    row = connection.execute(
        _OUTPUT, {"tenant": tenant_id, "endpoint": endpoint, "model": model}
    ).one()
    return row.tokens / row.rows if row.rows and row.rows >= LEAST_ROWS else None
