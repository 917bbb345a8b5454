"""``pressrun usage``: what was consumed, day by day, and what it cost."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from pressrun.admin_commands import tenant_id
from pressrun.api_client import ApiClient, Json
from pressrun.connection import (
    AdminKeyOption,
    ApiKeyOption,
    JsonOption,
    UrlOption,
    admin_client,
    tenant_client,
)
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal, table

MICRO = 1_000_000
GROUPS = ("tenant_id", "endpoint", "model")
AMOUNTS = (
    "rows",
    "input_tokens",
    "output_tokens",
    "images",
    "media_seconds",
    "compute_seconds",
    "cost",
)
TITLES = ("rows", "tokens in", "tokens out", "images", "media s", "compute s", "cost")


def usage(  # noqa: PLR0917 - options
    by: Annotated[
        str, typer.Option(help="What to tell apart beside days: `model`, `endpoint`, `tenant_id`.")
    ] = "model",
    days: Annotated[int, typer.Option(min=1, max=3_660, help="The last so many, in UTC.")] = 31,
    since: Annotated[str | None, typer.Option(help="First day, as in 2026-03-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day.")] = None,
    all_tenants: Annotated[bool, typer.Option(help="Of everybody; takes the admin key.")] = False,
    tenant: Annotated[
        str | None, typer.Option(help="Of this tenant, by id or name; takes the admin key.")
    ] = None,
    csv_only: Annotated[bool, typer.Option("--csv", help="Write CSV to stdout.")] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    admin_key: AdminKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Show what was consumed on each day, with totals."""
    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    if unknown := set(groups) - set(GROUPS):
        raise CommandError(f"--by does not know {', '.join(sorted(unknown))}", ExitCode.USAGE)
    first, last = _span(since, until, days)
    query: Json = {
        "start_time": _seconds(first),
        "end_time": _seconds(last + timedelta(days=1)),
        "group_by": ",".join(groups) or None,
    }
    if all_tenants or tenant is not None:
        with admin_client(url, admin_key) as client:
            if tenant is not None:
                query["tenant_id"] = tenant_id(client, tenant)
            found = _pages(client, "/v1/admin/usage", query)
    else:
        with tenant_client(url, api_key) as client:
            found = _pages(client, "/v1/usage", query)
    if csv_only:
        _write_csv(found, groups)
    else:
        Terminal(json_only=json_only).result(found, lambda: _table(found, groups))


def money(millionths: int) -> str:
    """In the unit that the catalog's prices are in."""
    return f"{millionths / MICRO:,.6f}".rstrip("0").rstrip(".")


def _pages(client: ApiClient, path: str, query: Json) -> Json:
    """All days as one page."""
    found = client.get(path, **query)
    while found["has_more"]:
        page = client.get(path, **query, page=found["next_page"])
        found = page | {"data": [*found["data"], *page["data"]]}
    return found


def _span(since: str | None, until: str | None, days: int) -> tuple[date, date]:
    last = _day(until) if until else datetime.now(UTC).date()
    first = _day(since) if since else last - timedelta(days=days - 1)
    if first > last:
        raise CommandError("--since is after --until", ExitCode.USAGE)
    return first, last


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text!r} is no day: write 2026-03-01", ExitCode.USAGE) from None


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _lines(found: Json, groups: tuple[str, ...]) -> list[tuple[list[str], Json]]:
    """Of each day and group: how it is called, and what it has."""
    return [
        ([_called(bucket["start_time"]), *(str(result[name]) for name in groups)], result)
        for bucket in found["data"]
        for result in bucket["results"]
    ]


def _called(start: int) -> str:
    return datetime.fromtimestamp(start, UTC).date().isoformat()


def _table(found: Json, groups: tuple[str, ...]) -> RenderableType:
    rows = [[*called, *_shown(result)] for called, result in _lines(found, groups)]
    total = ["total", *("" for _ in groups), *_shown(found["totals"])]
    return table("day", *groups, *TITLES, rows=[*rows, total])


def _shown(amounts: Json) -> list[str]:
    return [_number(name, amounts[name]) for name in AMOUNTS]


def _number(name: str, value: Any) -> str:
    if name == "cost":
        return money(value)
    return f"{value:,.1f}" if name.endswith("seconds") else f"{value:,}"


def _write_csv(found: Json, groups: tuple[str, ...]) -> None:
    """Without totals, which whoever reads it can make; costs in millionths."""
    writer = csv.writer(sys.stdout)
    writer.writerow(["day", *groups, *AMOUNTS])
    for called, result in _lines(found, groups):
        writer.writerow([*called, *(result[name] for name in AMOUNTS)])
    sys.stdout.flush()
