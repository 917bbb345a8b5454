"""The shapes of what was consumed, and of what may be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.admin_objects import TenantLimits
from api.objects import Page, Shape, UnixSeconds


class UsageAmounts(Shape):
    """What was consumed of work that succeeded."""

    rows: int
    input_tokens: int
    output_tokens: int
    images: int
    media_seconds: Annotated[float, Field(description="Of sound and video that was made")]
    compute_seconds: Annotated[
        float,
        Field(
            description="The rows' share of the time that their engines worked; of work that is no"
            " engine's, how long its shard ran"
        ),
    ]
    cost: Annotated[int, Field(description="In millionths of the unit that prices are in")]


class UsageResult(UsageAmounts):
    """Of one day; null where it was not asked to be told apart."""

    object: Literal["usage.result"]
    endpoint: str | None
    model: str | None
    tenant_id: str | None


class UsageBucket(Shape):
    """One day of UTC."""

    object: Literal["bucket"]
    start_time: UnixSeconds
    end_time: UnixSeconds
    results: list[UsageResult]


class UsagePage(Shape):
    """Days, the first ones first."""

    object: Literal["page"]
    data: list[UsageBucket]
    has_more: bool
    next_page: str | None
    totals: Annotated[UsageAmounts, Field(description="Of all days that were asked for")]


class Held(Shape):
    """What a tenant has at this moment; a day and a month of UTC."""

    queued_rows: Annotated[int, Field(description="Accepted and not ended")]
    stored_bytes: int
    reserved_tokens: Annotated[int, Field(description="For work that has not ended")]
    reserved_cost: int
    daily_tokens: int
    daily_compute_seconds: float
    daily_cost: int
    monthly_cost: int


class LimitNotice(Shape):
    """That a part of a limit was used up; a tenant is told of it once in its day or month."""

    id: str
    object: Literal["limit_notice"]
    limit: Annotated[
        Literal["daily_tokens", "daily_compute_seconds", "daily_budget", "monthly_budget"],
        Field(description="Its name"),
    ]
    period_start: Annotated[
        UnixSeconds, Field(description="The beginning of the day, or of the month, in UTC")
    ]
    percent: Annotated[Literal[80, 100], Field(description="Of the limit that were reached")]
    allowed: Annotated[
        float,
        Field(
            description="The limit at that moment: tokens, seconds, or millionths of the prices'"
            " unit"
        ),
    ]
    consumed: Annotated[
        float, Field(description="Of it, when the notice was made; what is reserved is no part")
    ]
    created_at: UnixSeconds


class LimitNoticeList(Page):
    """A page of notices, newest first."""

    data: list[LimitNotice]


class LimitsInUse(Shape):
    """A tenant's limits beside what counts for them. Nothing is reserved without limits."""

    object: Literal["limits"]
    limits: TenantLimits
    held: Held
