"""The shapes of what administrators see."""

from __future__ import annotations

from typing import Literal

from api.objects import Page, Shape, UnixSeconds


class TenantLimits(Shape):
    """What a tenant may have; null is no limit. Budgets are in millionths of the prices' unit."""

    requests_per_second: float | None
    request_burst: int | None
    queued_rows: int | None
    running_shards: int | None
    stored_bytes: int | None
    daily_tokens: int | None
    daily_compute_seconds: float | None
    daily_budget: int | None
    monthly_budget: int | None


class Tenant(Shape):
    """An account that owns jobs, files and keys."""

    id: str
    object: Literal["tenant"]
    name: str
    created_at: UnixSeconds
    disabled: bool
    weight: float
    limits: TenantLimits


class Key(Shape):
    """An API key, without the key."""

    id: str
    object: Literal["api_key"]
    name: str
    prefix: str
    created_at: UnixSeconds
    expires_at: UnixSeconds | None
    revoked_at: UnixSeconds | None


class NewKey(Key):
    """An API key with the key itself, which is shown this once."""

    key: str


class TenantList(Page):
    """A page of tenants."""

    data: list[Tenant]


class KeyList(Page):
    """A page of keys."""

    data: list[Key]
