"""Usage as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal

from api.rendering import Object
from api.usage_requests import DAY_SECONDS, Asked, seconds_of
from shared.db.limit_notices import NoticeRow
from shared.db.usage import SUMS, UsageRow
from shared.quotas.limits import Limits, Standing

NOTHING = dict.fromkeys(SUMS, 0) | {"media_seconds": 0.0, "compute_seconds": 0.0}


def page(asked: Asked, rows: Sequence[UsageRow], total: UsageRow | None) -> Object:
    """``rows`` are those of the page's days, ``total`` is of all days."""
    by_day: dict[date, list[Object]] = {}
    for row in rows:
        by_day.setdefault(row.day, []).append(_result(row))
    days = (asked.page_end - asked.page).days
    shown = [asked.page + timedelta(days=number) for number in range(days)]
    more = asked.page_end < asked.end
    return {
        "object": "page",
        "data": [_bucket(day, by_day.get(day, [])) for day in shown],
        "has_more": more,
        "next_page": str(seconds_of(asked.page_end)) if more else None,
        "totals": NOTHING if total is None else _amounts(total),
    }


def limits_in_use(limits: Limits, held: Standing, stored_bytes: int) -> Object:
    return {
        "object": "limits",
        "limits": limits._asdict(),
        "held": {
            "queued_rows": held.open_rows,
            "stored_bytes": stored_bytes,
            "reserved_tokens": held.open_tokens,
            "reserved_cost": held.open_cost,
            "daily_tokens": held.tokens_today,
            "daily_compute_seconds": round(held.compute_seconds_today, 6),
            "daily_cost": held.cost_today,
            "monthly_cost": held.cost_this_month,
        },
    }


def notice(row: NoticeRow) -> Object:
    return {
        "id": row.id,
        "object": "limit_notice",
        "limit": row.limit_name,
        "period_start": seconds_of(row.period_start),
        "percent": row.percent,
        "allowed": _plain(row.allowed),
        "consumed": _plain(row.consumed),
        "created_at": int(row.created_at),
    }


def _plain(amount: Decimal) -> int | float:
    """Whole where it is: costs and tokens are, seconds are not."""
    whole = int(amount)
    return whole if whole == amount else round(float(amount), 6)


def _bucket(day: date, results: list[Object]) -> Object:
    start = seconds_of(day)
    return {
        "object": "bucket",
        "start_time": start,
        "end_time": start + DAY_SECONDS,
        "results": results,
    }


def _result(row: UsageRow) -> Object:
    told = {"endpoint": row.endpoint, "model": row.model, "tenant_id": row.tenant_id}
    return {"object": "usage.result"} | told | _amounts(row)


def _amounts(row: UsageRow) -> Object:
    found = row._asdict()
    return {
        name: round(found[name], 6) if name.endswith("seconds") else found[name] for name in SUMS
    }
