"""``pressrun limits``: what your tenant may have, and what is left of it."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import RenderableType

from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.terminal import Terminal, table
from pressrun.usage_commands import money


class _Line(NamedTuple):
    """Of one limit: where its amounts are in ``held``."""

    limit: str
    used: str | None = None
    reserved: str | None = None


LINES = (
    _Line("requests_per_second"),
    _Line("request_burst"),
    _Line("queued_rows", "queued_rows"),
    _Line("running_shards"),
    _Line("stored_bytes", "stored_bytes"),
    _Line("daily_tokens", "daily_tokens", "reserved_tokens"),
    _Line("daily_compute_seconds", "daily_compute_seconds"),
    _Line("daily_budget", "daily_cost", "reserved_cost"),
    _Line("monthly_budget", "monthly_cost", "reserved_cost"),
)


@for_tenant
def limits(client: ApiClient, terminal: Terminal) -> None:
    """Show what your tenant may have, what it has used of it, and what is left."""
    found = client.get("/v1/limits")
    terminal.result(found, lambda: _table(found))


def _table(found: Json) -> RenderableType:
    rows = [_row(line, found["limits"][line.limit], found["held"]) for line in LINES]
    return table("limit", "allowed", "used", "reserved", "left", "used %", rows=rows)


def _row(line: _Line, allowed: float | None, held: Json) -> list[str | None]:
    used = None if line.used is None else held[line.used]
    reserved = None if line.reserved is None else held[line.reserved]
    left = part = None
    if allowed is not None and used is not None:
        left = max(0, allowed - used - (reserved or 0))
        part = f"{100 * used / allowed:.0f}" if allowed else None
    amounts = [_shown(line.limit, amount) for amount in (allowed, used, reserved, left)]
    return [line.limit, *amounts, part]


def _shown(limit: str, amount: float | None) -> str | None:
    if amount is None:
        return None
    if limit.endswith("budget"):
        return money(int(amount))
    return f"{amount:,}" if isinstance(amount, int) else f"{amount:,.3f}".rstrip("0").rstrip(".")
