"""Queries on what was consumed: ``usage`` has a row for each shard and model, ``usage_days`` the
sums of those that are marked as counted. Both together are exact in any one statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from sqlalchemy import Connection, text


class _Spent(NamedTuple):
    columns: str
    table: str


_ALL = """(
    SELECT day, input_tokens + output_tokens AS tokens, compute_seconds, cost
      FROM usage_days WHERE tenant_id = :tenant AND day >= month.first
    UNION ALL
    SELECT CAST(created_at AS date), input_tokens + output_tokens, compute_seconds, cost
      FROM usage WHERE tenant_id = :tenant AND NOT counted AND created_at >= month.first)"""

SPENT = _Spent(
    "spent.tokens, spent.seconds, spent.cost, spent.month, spent.left",
    f"""(
    SELECT CAST(coalesce(sum(a.tokens) FILTER (WHERE a.day = month.today), 0) AS bigint) AS tokens,
           coalesce(sum(a.compute_seconds) FILTER (WHERE a.day = month.today), 0) AS seconds,
           CAST(coalesce(sum(a.cost) FILTER (WHERE a.day = month.today), 0) AS bigint) AS cost,
           CAST(coalesce(sum(a.cost), 0) AS bigint) AS month,
           CAST(extract(epoch FROM month.today + 1 - min(month.now)) AS double precision) AS left
      FROM (SELECT t.now, CAST(t.now AS date) AS today,
                   CAST(date_trunc('month', t.now) AS date) AS first
              FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now) t) month
      LEFT JOIN LATERAL {_ALL} a ON true
     GROUP BY month.today) spent""",
)
"""What the tenant ``:tenant`` has consumed in this day and this month of UTC."""

MOST_ROWS = 5_000

_COUNT = text("""
WITH part AS (
    SELECT shard_id, endpoint, model FROM usage WHERE NOT counted
     LIMIT :limit FOR UPDATE SKIP LOCKED
), marked AS (
    UPDATE usage u SET counted = true FROM part
     WHERE u.shard_id = part.shard_id AND u.endpoint = part.endpoint AND u.model = part.model
    RETURNING u.*
), added AS (
    INSERT INTO usage_days AS d (tenant_id, day, endpoint, model, rows, input_tokens,
                                 output_tokens, images, media_seconds, compute_seconds, cost)
    SELECT tenant_id, CAST(created_at AT TIME ZONE 'UTC' AS date) AS day, endpoint, model,
           sum(rows), sum(input_tokens), sum(output_tokens), sum(images), sum(media_seconds),
           sum(compute_seconds), sum(cost)
      FROM marked GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        ON CONFLICT (tenant_id, day, endpoint, model) DO UPDATE
       SET rows = d.rows + excluded.rows,
           input_tokens = d.input_tokens + excluded.input_tokens,
           output_tokens = d.output_tokens + excluded.output_tokens,
           images = d.images + excluded.images,
           media_seconds = d.media_seconds + excluded.media_seconds,
           compute_seconds = d.compute_seconds + excluded.compute_seconds,
           cost = d.cost + excluded.cost
)
SELECT (SELECT count(*) FROM part), coalesce(array_agg(s.tenant_id), '{}'),
       coalesce(array_agg(s.day), '{}')
  FROM (SELECT DISTINCT m.tenant_id, CAST(m.created_at AT TIME ZONE 'UTC' AS date) AS day
          FROM marked m JOIN tenant_limits l ON l.tenant_id = m.tenant_id) s
""")


class Counted(NamedTuple):
    """What was added to its days."""

    rows: int
    spent: list[tuple[str, date]]
    """Of tenants with limits: who, and on which days."""


def count_usage(connection: Connection, *, limit: int = MOST_ROWS) -> Counted:
    """Adds up to ``limit`` rows of usage to their days. Any number of processes may do it at
    once."""
    rows, tenants, days = connection.execute(_COUNT, {"limit": limit}).one()
    return Counted(rows, list(zip(tenants, days, strict=True)))


class UsageRow(NamedTuple):
    """What was consumed in one day, as far as it was asked to be told apart."""

    day: date
    tenant_id: str | None
    endpoint: str | None
    model: str | None
    rows: int
    input_tokens: int
    output_tokens: int
    images: int
    media_seconds: float
    compute_seconds: float
    cost: int


SUMS = UsageRow._fields[4:]
GROUPS = ("tenant_id", "endpoint", "model")
"""What usage may be told apart by, beside the day."""


def _usage(groups: Sequence[str], *, all_tenants: bool) -> str:
    told = ", ".join(name if name in groups else f"CAST(NULL AS text) AS {name}" for name in GROUPS)
    counted = ", ".join(f"{name} AS {name}" for name in SUMS)
    sums = ", ".join(
        f"sum({name}) AS {name}"
        if name.endswith("seconds")
        else f"CAST(sum({name}) AS bigint) AS {name}"
        for name in SUMS
    )
    mine = "true" if all_tenants else "tenant_id = :tenant"
    by = ", ".join(["day", *groups])
    return f"""
SELECT day, {told}, {sums} FROM (
    SELECT day, tenant_id, endpoint, model, {counted} FROM usage_days
     WHERE {mine} AND day >= :first AND day < :end
    UNION ALL
    SELECT CAST(created_at AT TIME ZONE 'UTC' AS date), tenant_id, endpoint, model, {counted}
      FROM usage WHERE {mine} AND NOT counted
       AND created_at >= :first AND created_at < :end) found
 GROUP BY {by}"""


def usage_days(
    connection: Connection,
    tenant_id: str | None,
    *,
    first: date,
    end: date,
    groups: Sequence[str] = (),
) -> list[UsageRow]:
    """What the tenant (None: every tenant) consumed on each day from ``first`` and before ``end``,
    in UTC; days of which nothing is known are left out. ``groups`` are of ``GROUPS``."""
    query = _usage(groups, all_tenants=tenant_id is None)
    ordered = f"{query} ORDER BY {', '.join(['day', *groups])}"
    rows = connection.execute(text(ordered), {"tenant": tenant_id, "first": first, "end": end})
    return [UsageRow._make(row) for row in rows]


def usage_total(
    connection: Connection, tenant_id: str | None, *, first: date, end: date
) -> UsageRow | None:
    """As one row, its day the first on which something was consumed; None when nothing was."""
    sums = ", ".join(f"sum({name})" for name in SUMS)
    query = f"""SELECT min(day), NULL, NULL, NULL, {sums}
                  FROM ({_usage((), all_tenants=tenant_id is None)}) days"""
    values = {"tenant": tenant_id, "first": first, "end": end}
    row = connection.execute(text(query), values).one()
    if row[0] is None:
        return None
    found = zip(SUMS, row[4:], strict=True)
    numbers = [float(n) if name.endswith("seconds") else int(n) for name, n in found]
    return UsageRow(row[0], None, None, None, *numbers)  # type: ignore[arg-type]
