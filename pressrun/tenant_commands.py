"""``pressrun tenants …``: what a tenant may have, and whether it is let in."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType

from pressrun.admin_commands import TENANTS, tenant_id
from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_admin
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal, table, when
from pressrun.usage_commands import MICRO, money

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="Its id or name.")]
Whole = Annotated[int | None, typer.Option(min=0)]
Budget = Annotated[
    float | None, typer.Option(min=0, help="In the unit that the catalog's prices are in.")
]

BUDGETS = ("daily_budget", "monthly_budget")
MOST_WEIGHT = 1000


@for_admin
def show(client: ApiClient, terminal: Terminal, tenant: TenantArgument) -> None:
    """Show a tenant and its limits."""
    found = client.get(f"{TENANTS}/{tenant_id(client, tenant)}")
    terminal.result(found, lambda: _sheet(found))


@for_admin
def change(  # noqa: PLR0917 - an option for each limit
    client: ApiClient,
    terminal: Terminal,
    tenant: TenantArgument,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    weight: Annotated[
        float | None,
        typer.Option(min=0, max=MOST_WEIGHT, help="Its part of a pool, over all who wait there."),
    ] = None,
    requests_per_second: Annotated[float | None, typer.Option(min=0)] = None,
    request_burst: Annotated[
        int | None, typer.Option(min=1, help="At once, after a pause.")
    ] = None,
    queued_rows: Whole = None,
    running_shards: Whole = None,
    stored_bytes: Whole = None,
    daily_tokens: Whole = None,
    daily_compute_seconds: Annotated[float | None, typer.Option(min=0)] = None,
    daily_budget: Budget = None,
    monthly_budget: Budget = None,
    no_limit: Annotated[
        list[str] | None, typer.Option(help="Take a limit away, as in `queued_rows`. Repeatable.")
    ] = None,
) -> None:
    """Set a tenant's limits, name or weight; what is not named stays."""
    limits = {
        "requests_per_second": requests_per_second,
        "request_burst": request_burst,
        "queued_rows": queued_rows,
        "running_shards": running_shards,
        "stored_bytes": stored_bytes,
        "daily_tokens": daily_tokens,
        "daily_compute_seconds": daily_compute_seconds,
        "daily_budget": _micro(daily_budget),
        "monthly_budget": _micro(monthly_budget),
    }
    given: Json = {key: value for key, value in limits.items() if value is not None}
    for key in (key.replace("-", "_") for key in no_limit or []):
        if key not in limits or key in given:
            raise CommandError(f"--no-limit takes one of {', '.join(limits)}", ExitCode.USAGE)
        given[key] = None
    body: Json = {"limits": given} if given else {}
    body |= {"name": name} if name is not None else {}
    body |= {"weight": weight} if weight is not None else {}
    if not body:
        raise CommandError("say what is to be changed", ExitCode.USAGE)
    _change(client, terminal, tenant, body)


@for_admin
def disable(client: ApiClient, terminal: Terminal, tenant: TenantArgument) -> None:
    """Refuse a tenant's keys within two seconds; its work waits, but for what runs."""
    _change(client, terminal, tenant, {"disabled": True})


@for_admin
def enable(client: ApiClient, terminal: Terminal, tenant: TenantArgument) -> None:
    """Let a disabled tenant in again."""
    _change(client, terminal, tenant, {"disabled": False})


def _change(client: ApiClient, terminal: Terminal, tenant: str, body: Json) -> None:
    found = client.patch(f"{TENANTS}/{tenant_id(client, tenant)}", body)
    terminal.result(found, lambda: _sheet(found))


def _micro(amount: float | None) -> int | None:
    return None if amount is None else round(amount * MICRO)


def _sheet(tenant: Json) -> RenderableType:
    own = [
        ("id", tenant["id"]),
        ("name", tenant["name"]),
        ("created", when(tenant["created_at"])),
        ("disabled", "yes" if tenant["disabled"] else "no"),
        ("weight", f"{tenant['weight']:g}"),
    ]
    limits = [
        (name, money(value) if name in BUDGETS and value is not None else value)
        for name, value in tenant["limits"].items()
    ]
    return table("", "", rows=[*own, *limits], headed=False)
