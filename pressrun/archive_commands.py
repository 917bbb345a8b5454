"""``pressrun admin …``: what is kept of old jobs, for how long, and proof of what was deleted."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from pressrun.admin_commands import TENANTS, TenantOption, tenant_id
from pressrun.api_client import ApiClient, Json
from pressrun.connection import AdminKeyOption, UrlOption, admin_client, for_admin
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal, table, when

LINES_AT_ONCE = 1_000
FOREVER = "forever"
DEFAULT = "default"

admin_app = typer.Typer(no_args_is_help=True, help="Archive, retention and erasure of tenants.")


@admin_app.command()
def archive(
    tenant: TenantOption = "default",
    day: Annotated[str | None, typer.Option(help="Only jobs that ended then: 2026-11-22.")] = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Print a tenant's archived jobs, a line of JSON each, in the order in which they ended."""
    with admin_client(url, admin_key) as client:
        path = f"{TENANTS}/{tenant_id(client, tenant)}/archived_jobs"
        after: str | None = None
        while True:
            page = client.get(path, limit=LINES_AT_ONCE, day=day, after=after)
            for line in page["data"]:
                sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
            if not page["has_more"]:
                return
            after = page["last_id"]


@admin_app.command()
@for_admin
def retention(
    client: ApiClient,
    terminal: Terminal,
    tenant: TenantOption = "default",
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Such as jobs=90, outputs=forever or events=default; repeatable."),
    ] = None,
) -> None:
    """Show, and with --keep change, for how many days a tenant's things are kept."""
    path = f"{TENANTS}/{tenant_id(client, tenant)}/retention"
    policy = client.get(path)
    if keep:
        policy = client.put(path, _changed(policy, keep))
    rows = (
        (kind, FOREVER if days is None else f"{days} days", kind in policy["own"])
        for kind, days in policy["days"].items()
    )
    terminal.result(
        policy,
        lambda: table(
            "kept",
            "for",
            "own",
            rows=((kind, days, "yes" if own else "") for kind, days, own in rows),
        ),
    )


@admin_app.command()
@for_admin
def erase(
    client: ApiClient,
    terminal: Terminal,
    *,
    tenant: TenantOption,
    confirm: Annotated[str, typer.Option(help="The tenant's id once more: there is no way back.")],
) -> None:
    """Erase a tenant and everything of it. Prints the record of it, which is the proof later."""
    found = tenant_id(client, tenant)
    if confirm != found:
        raise CommandError(f"--confirm must be {found}", ExitCode.REFUSED)
    record = client.delete(f"{TENANTS}/{found}")
    terminal.result(record, lambda: record["id"])


@admin_app.command()
@for_admin
def deletion(
    client: ApiClient,
    terminal: Terminal,
    deletion_id: Annotated[str, typer.Argument(metavar="ID", help="The record's, deletion_….")],
) -> None:
    """Show what was deleted, and whether that is complete."""
    found = client.get(f"/v1/admin/deletions/{deletion_id}")
    removed = ", ".join(f"{rows} {name}" for name, rows in sorted(found["rows"].items()))
    terminal.result(
        found,
        lambda: (
            f"{found['kind']} {found['target']}: {found['status']}"
            f" ({when(found['completed_at'])}); {found['objects']} objects; {removed}"
        ),
    )


def _changed(policy: Json, keep: list[str]) -> Json:
    """The tenant's own days, with what ``keep`` says. Raises CommandError."""
    own = {kind: policy["days"][kind] for kind in policy["own"]}
    for item in keep:
        kind, _, days = item.partition("=")
        if kind not in policy["days"]:
            raise CommandError(f"not one of {', '.join(policy['days'])}: {kind}", ExitCode.REFUSED)
        own.pop(kind, None)
        if days == FOREVER:
            own[kind] = None
        elif days.isascii() and days.isdigit():
            own[kind] = int(days)
        elif days != DEFAULT:
            raise CommandError(f"{item}: days, 'forever' or 'default'", ExitCode.REFUSED)
    return own
