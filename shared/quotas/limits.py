"""Whether work still fits: a tenant's limits beside what it has accepted and consumed."""

from __future__ import annotations

from typing import NamedTuple

from shared.errors import BudgetExceeded, PressrunError, QuotaExceeded
from shared.quotas.reservations import Reservation

FULL_QUEUE_RETRY_SECONDS = 5
"""Room in a queue comes with the next row that ends."""


class Limits(NamedTuple):
    """Of one tenant; None is no limit. The columns of ``tenant_limits``."""

    requests_per_second: float | None = None
    request_burst: int | None = None
    queued_rows: int | None = None
    """Accepted and not ended, whether they wait or run."""
    running_shards: int | None = None
    """At a time, in all pools; claims look at it."""
    stored_bytes: int | None = None
    daily_tokens: int | None = None
    """Read and generated, in a day of UTC."""
    daily_compute_seconds: float | None = None
    daily_budget: int | None = None
    """Millionths of the prices' unit."""
    monthly_budget: int | None = None

    @property
    def bind_work(self) -> bool:
        """Whether there is a limit that accepted work counts for."""
        return any(getattr(self, name) is not None for name in OF_WORK)


OF_WORK = (
    "queued_rows",
    "daily_tokens",
    "daily_compute_seconds",
    "daily_budget",
    "monthly_budget",
)
"""The limits that accepted work counts for."""

TOLD = ("daily_tokens", "daily_compute_seconds", "daily_budget", "monthly_budget")
"""The limits of what is consumed: the tenant is told when most of one is used up."""


class Standing(NamedTuple):
    """What a tenant has accepted, and consumed by now; costs in millionths."""

    open_rows: int = 0
    open_tokens: int = 0
    """Reserved for work that has not ended."""
    open_cost: int = 0
    tokens_today: int = 0
    compute_seconds_today: float = 0.0
    cost_today: int = 0
    cost_this_month: int = 0
    seconds_to_midnight: float = 0.0
    """Of UTC."""


def judge(limits: Limits, standing: Standing, asked: Reservation) -> None:
    """Raises QuotaExceeded or BudgetExceeded when what ``standing`` holds, ``asked`` included, is
    more than the limits allow. Work of which nobody can say what it takes needs room for
    something; work that takes nothing of a kind is not held up by that kind's limit."""
    today, month = standing.cost_today, standing.cost_this_month
    held = {
        "queued_rows": (standing.open_rows, asked.rows),
        "daily_tokens": (standing.tokens_today + standing.open_tokens, asked.tokens),
        "daily_compute_seconds": (standing.compute_seconds_today, 0),
        "daily_budget": (today + standing.open_cost, asked.cost),
        "monthly_budget": (month + standing.open_cost, asked.cost),
    }
    for name, (taken, more) in held.items():
        limit = getattr(limits, name)
        if limit is None:
            continue
        vague = asked.is_open_ended or name == "daily_compute_seconds"
        if (more and taken > limit) or (not more and vague and taken >= limit):
            raise _refusal(name, limit, standing.seconds_to_midnight)


def _refusal(name: str, limit: float, seconds_to_midnight: float) -> PressrunError:
    if name.endswith("budget"):
        return BudgetExceeded(f"the tenant's '{name}' does not allow for this", param=name)
    said = f"the tenant's quota '{name}' is {limit}"
    if name == "queued_rows":
        after = FULL_QUEUE_RETRY_SECONDS
        return QuotaExceeded(
            f"{said}: wait until rows have ended", param=name, retry_after_seconds=after
        )
    return QuotaExceeded(
        f"{said}: what is left of the day's may not suffice for this",
        param=name,
        retry_after_seconds=seconds_to_midnight,
    )
