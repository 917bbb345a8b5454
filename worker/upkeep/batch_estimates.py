"""What a batch would take: counted, measured or bounded, never guessed; each number says how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from shared.db.job_rows import MAX_POSITION
from shared.db.models import Model
from shared.db.queue_estimates import (
    mean_output_tokens,
    places_ahead,
    recent_pace,
    unserved_pools,
)
from shared.lifecycle.quotas import refusal_of
from shared.quotas import NOTHING, Reservation
from worker.upkeep.demand import Calls, Demand

Estimate = dict[str, Any]

_MILLION = 1_000_000
_BASES = {
    "input_tokens": "four characters of the texts count as one token",
    "output_tokens": "the means of your calls of these models within a day",
    "max_output_tokens": "the limits in the bodies, for each of their answers",
    "cost": "the catalog's prices",
    "estimated_start": "the pace of the first pool in the last ten minutes",
}


def estimate(
    connection: Connection,
    tenant_id: str,
    demand: Demand,
    models: Mapping[str, Model],
    *,
    rows: int,
    slices: int,
    pools: Sequence[str],
    reserved: Reservation = NOTHING,
) -> Estimate:
    """The estimate of a valid batch whose slices would run in ``pools``. What nothing tells is left
    out. ``reserved`` is what its rows may consume at most. Reads, and writes nothing."""
    output = expected_output(connection, tenant_id, demand)
    shown: Estimate = {
        "rows": rows,
        "slices": slices,
        "calls": [
            {"endpoint": endpoint, "model": model, "rows": calls.rows}
            for (endpoint, model), calls in sorted(demand.calls.items())
        ],
        "input_tokens": _sum(calls.input_tokens for calls in demand.calls.values()),
        "output_tokens": _sum(output.values()),
        "max_output_tokens": _sum(calls.max_output_tokens for calls in demand.calls.values()),
        "cost": cost(demand, models, output),
        "is_possible": not unserved_pools(connection, pools),
        "estimated_start": _start(connection, tenant_id, pools),
        "quotas": {"is_accepted": True},
    }
    refusal = refusal_of(connection, tenant_id, reserved)
    if refusal is not None:
        why = {"code": refusal.code, "message": refusal.message, "param": refusal.param}
        shown["quotas"] = {"is_accepted": False, "error": why}
    shown = {name: value for name, value in shown.items() if value is not None}
    return shown | {"basis": [f"{name}: {_BASES[name]}" for name in shown if name in _BASES]}


def expected_output(
    connection: Connection, tenant_id: str, demand: Demand
) -> dict[tuple[str, str], int | None]:
    """Tokens that the calls should generate, by endpoint and model: the tenant's recent mean, as
    far as the bodies allow it; None where there were too few to go by."""
    found: dict[tuple[str, str], int | None] = {}
    for (endpoint, model), calls in demand.calls.items():
        if calls.input_tokens is None or calls.max_output_tokens == 0:
            found[endpoint, model] = None if calls.input_tokens is None else 0
            continue
        mean = mean_output_tokens(connection, tenant_id, endpoint, model)
        expected = None if mean is None else round(mean * calls.rows)
        if expected is not None and calls.max_output_tokens is not None:
            expected = min(expected, calls.max_output_tokens)
        found[endpoint, model] = expected
    return found


def cost(
    demand: Demand,
    models: Mapping[str, Model],
    output: Mapping[tuple[str, str], int | None],
) -> Estimate | None:
    """Pure. None as soon as calls have no price, or prices of several currencies."""
    expected: float | None = 0.0
    at_most: float | None = 0.0
    currencies = set()
    for key, calls in demand.calls.items():
        model = models.get(key[1])
        price = model.detail.get("price") if model else None
        if price is None:
            return None
        currencies.add(price["currency"])
        expected = _plus(expected, charge(price, calls, output.get(key)))
        at_most = _plus(at_most, charge(price, calls, calls.max_output_tokens))
    if len(currencies) != 1 or (expected is None and at_most is None):
        return None
    sums = {"expected": expected, "at_most": at_most}
    known = {name: round(value, 8) for name, value in sums.items() if value is not None}
    return {"currency": currencies.pop()} | known


def charge(price: Mapping[str, Any], calls: Calls, output_tokens: int | None) -> float | None:
    """Pure. None when something is consumed that has no price, or that nobody can count."""
    if calls.images is not None:
        return _times(price.get("per_image"), calls.images)
    if calls.seconds is not None:
        return _times(price.get("per_second"), calls.seconds)
    if calls.input_tokens is None or output_tokens is None:
        return None
    inputs = _times(price.get("input_per_million"), calls.input_tokens / _MILLION)
    if not output_tokens:
        return inputs
    return _plus(inputs, _times(price.get("output_per_million"), output_tokens / _MILLION))


def _start(connection: Connection, tenant_id: str, pools: Sequence[str]) -> int | None:
    """When the first slice should start, in Unix seconds."""
    pool = pools[0]
    pace = recent_pace(connection, pool)
    ahead = places_ahead(connection, tenant_id, pool)
    if pace is None or ahead >= MAX_POSITION:
        return None
    now = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    return math.ceil(float(now) + ahead / pace.shards_a_second)


def _sum(values: Any) -> int | None:
    total: int | None = 0
    for value in values:
        total = None if total is None or value is None else total + value
    return total


def _times(price: float | None, amount: float) -> float | None:
    return None if price is None else price * amount


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
