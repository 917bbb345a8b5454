"""Telling a tenant that most of a limit is used up, or all of it: each once in a day or month.

Whoever has added up what was consumed looks, in the same transaction, at the limits of those who
consumed it, for the days on which they did: so nothing is missed that was counted late, and nothing
is asked of the commits that end work. What is unique in ``limit_notices`` is what is told once.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.ids import new_notice_id
from shared.lifecycle.webhooks import tell
from shared.quotas.limits import TOLD
from shared.webhook_events import THRESHOLD_REACHED

PERCENTS = (80, 100)
KEPT_DAYS = 400

Spent = tuple[str, date]
"""A tenant, and a day of UTC on which it consumed something."""


class _Of(NamedTuple):
    amount: str
    """A column of ``spent`` below."""
    period: str


_OF = {
    "daily_tokens": _Of("spent.tokens", "asked.day"),
    "daily_compute_seconds": _Of("spent.seconds", "asked.day"),
    "daily_budget": _Of("spent.cost", "asked.day"),
    "monthly_budget": _Of("spent.month", "asked.first"),
}
_LIMITS = ", ".join(
    f"('{name}', {of.period}, CAST(l.{name} AS numeric), CAST({of.amount} AS numeric))"
    for name, of in ((name, _OF[name]) for name in TOLD)
)
_PERCENTS = ", ".join(f"({percent})" for percent in PERCENTS)

# What is counted, and what is not counted yet: in one statement, both together are exact.
_REACHED = text(f"""
WITH asked AS (
    SELECT DISTINCT a.tenant_id, a.day, CAST(date_trunc('month', a.day) AS date) AS first
      FROM unnest(CAST(:tenants AS text[]), CAST(:days AS date[])) AS a (tenant_id, day)
), reached AS (
    SELECT DISTINCT asked.tenant_id, v.name, v.period, p.percent, v.allowed, v.consumed
      FROM asked JOIN tenant_limits l ON l.tenant_id = asked.tenant_id
     CROSS JOIN LATERAL (
        SELECT coalesce(sum(u.tokens) FILTER (WHERE u.day = asked.day), 0) AS tokens,
               coalesce(sum(u.seconds) FILTER (WHERE u.day = asked.day), 0) AS seconds,
               coalesce(sum(u.cost) FILTER (WHERE u.day = asked.day), 0) AS cost,
               coalesce(sum(u.cost), 0) AS month
          FROM (SELECT day, input_tokens + output_tokens AS tokens, compute_seconds AS seconds, cost
                  FROM usage_days d WHERE d.tenant_id = asked.tenant_id AND d.day >= asked.first
                   AND d.day < asked.first + interval '1 month'
                UNION ALL
                SELECT CAST(c.created_at AT TIME ZONE 'UTC' AS date),
                       input_tokens + output_tokens, compute_seconds, cost
                  FROM usage c WHERE c.tenant_id = asked.tenant_id AND NOT c.counted
                   AND c.created_at >= CAST(asked.first AS timestamp) AT TIME ZONE 'UTC'
                   AND c.created_at < (asked.first + interval '1 month') AT TIME ZONE 'UTC') u
        ) spent
     CROSS JOIN LATERAL (VALUES {_LIMITS}) AS v (name, period, allowed, consumed)
     CROSS JOIN (VALUES {_PERCENTS}) AS p (percent)
     WHERE v.allowed > 0 AND v.consumed * 100 >= v.allowed * p.percent)
SELECT * FROM reached r
 WHERE NOT EXISTS (SELECT 1 FROM limit_notices n
                    WHERE n.tenant_id = r.tenant_id AND n.limit_name = r.name
                      AND n.period_start = r.period AND n.percent = r.percent)
 ORDER BY tenant_id, name, period, percent
""")

_ADD = text("""
INSERT INTO limit_notices (id, tenant_id, limit_name, period_start, percent, allowed, consumed)
VALUES (:id, :tenant, :name, :period, :percent, :allowed, :consumed)
    ON CONFLICT (tenant_id, limit_name, period_start, percent) DO NOTHING
""")

_FORGET = text("""
DELETE FROM limit_notices WHERE tenant_id = :tenant AND period_start < CAST(:period AS date) - :days
""")


def tell_of_limits(connection: Connection, spent: Collection[Spent]) -> int:
    """Tells of every threshold that was reached on these days, or in their months, and that nobody
    was told of; returns how many. For a transaction, of any number of processes at once: those
    that find the same wait for each other, and the first one tells."""
    if not spent:
        return 0
    asked = sorted(set(spent))
    values = {"tenants": [tenant for tenant, _ in asked], "days": [day for _, day in asked]}
    told = 0
    for row in connection.execute(_REACHED, values).all():
        notice_id = new_notice_id()
        mine = {"tenant": row.tenant_id, "period": row.period}
        what = {"name": row.name, "percent": row.percent}
        amounts = {"allowed": row.allowed, "consumed": row.consumed}
        added = connection.execute(_ADD, mine | what | amounts | {"id": notice_id})
        if added.rowcount:
            tell(connection, tenant_id=row.tenant_id, kind=THRESHOLD_REACHED, about=notice_id)
            connection.execute(_FORGET, mine | {"days": KEPT_DAYS})
            told += 1
    return told
