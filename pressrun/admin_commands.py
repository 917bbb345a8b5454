"""``pressrun keys …`` and ``pressrun tenants …``: what the admin key is for."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType

from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_admin
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal, table, when

TENANTS = "/v1/admin/tenants"
DAY_SECONDS = 86_400

keys_app = typer.Typer(no_args_is_help=True, help="Create, list and revoke tenants' keys.")
tenants_app = typer.Typer(no_args_is_help=True, help="Create, list and change tenants.")

TenantOption = Annotated[str, typer.Option("--tenant", help="The tenant's id or name.")]


@keys_app.command(name="create")
@for_admin
def create_key(
    client: ApiClient,
    terminal: Terminal,
    *,
    tenant: TenantOption = "default",
    name: Annotated[str, typer.Option(help="A label, to tell keys apart.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
) -> None:
    """Create a key. It is shown this once; the server keeps only its hash."""
    body: Json = {"name": name} if name else {}
    if days is not None:
        body["expires_in_seconds"] = days * DAY_SECONDS
    key = client.post(f"{TENANTS}/{tenant_id(client, tenant)}/keys", body)
    terminal.result(key, lambda: key["key"])


@keys_app.command(name="list")
@for_admin
def list_keys(client: ApiClient, terminal: Terminal, tenant: TenantOption = "default") -> None:
    """List a tenant's keys."""
    keys = client.list_all(f"{TENANTS}/{tenant_id(client, tenant)}/keys")
    terminal.result(keys, lambda: _key_table(keys))


@keys_app.command(name="revoke")
@for_admin
def revoke_key(
    client: ApiClient,
    terminal: Terminal,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, key_….")],
    tenant: TenantOption = "default",
) -> None:
    """Revoke a key; it stops working within seconds."""
    key = client.delete(f"{TENANTS}/{tenant_id(client, tenant)}/keys/{key_id}")
    terminal.result(key, lambda: f"revoked {key_id}")


@tenants_app.command(name="create")
@for_admin
def create_tenant(
    client: ApiClient,
    terminal: Terminal,
    name: Annotated[str, typer.Argument(help="What people call the tenant.")],
) -> None:
    """Create a tenant; give it a key with `pressrun keys create`."""
    tenant = client.post(TENANTS, {"name": name})
    terminal.result(tenant, lambda: tenant["id"])


@tenants_app.command(name="list")
@for_admin
def list_tenants(client: ApiClient, terminal: Terminal) -> None:
    """List all tenants."""
    tenants = client.list_all(TENANTS)
    rows = ((tenant["id"], tenant["name"], when(tenant.get("created_at"))) for tenant in tenants)
    terminal.result(tenants, lambda: table("id", "name", "created", rows=rows))


def tenant_id(client: ApiClient, tenant: str) -> str:
    """The id of the tenant with this id or name. Raises CommandError (REFUSED)."""
    known = client.list_all(TENANTS)
    for field in ("id", "name"):
        found = [item["id"] for item in known if item[field] == tenant]
        if len(found) == 1:
            return str(found[0])
        if found:
            raise CommandError(
                f"{len(found)} tenants are called {tenant!r}: give an id", ExitCode.REFUSED
            )
    raise CommandError(f"there is no tenant {tenant!r}", ExitCode.REFUSED)


def _key_table(keys: list[Json]) -> RenderableType:
    return table(
        "id",
        "name",
        "prefix",
        "created",
        "expires",
        "revoked",
        rows=(
            (
                key["id"],
                key.get("name"),
                key.get("prefix"),
                when(key.get("created_at")),
                when(key.get("expires_at")),
                when(key.get("revoked_at")),
            )
            for key in keys
        ),
    )
