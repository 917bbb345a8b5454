"""``pressrun webhooks …``: who is told what ends, and what came of telling them."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

import typer
from rich.console import RenderableType

from pressrun import verbs
from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal, table, when

ENDPOINTS = "/v1/webhook_endpoints"
DELIVERIES = "/v1/webhook_deliveries"
_UNITS = {"m": 60, "h": 3_600, "d": 86_400}

app = typer.Typer(no_args_is_help=True, help="Have URLs told what has ended.")

EndpointId = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id, whe_….")]
KeepOption = Annotated[
    bool, typer.Option("--keep-old", help="Sign with the old secret, too, for 24 hours.")
]


@app.command()
@for_tenant
def create(
    client: ApiClient,
    terminal: Terminal,
    *,
    target: Annotated[str, typer.Argument(metavar="URL", help="https://…, of a public host.")],
    name: Annotated[str, typer.Option(help="What people call it.")] = "webhook",
    event: Annotated[
        list[str] | None, typer.Option(help="Such as batch.completed; repeatable. Default: all.")
    ] = None,
) -> None:
    """Create a webhook endpoint. Its signing secret is shown this once."""
    types = event or client.get("/v1/webhook_event_types")["data"]
    body = {"name": name, "url": target, "event_types": types}
    made = client.post(ENDPOINTS, body)
    terminal.note(f"{made['id']} is told {len(types)} types of events; its signing secret:")
    terminal.result(made, lambda: made["signing_secret"])


@app.command(name="list")
@for_tenant
def list_endpoints(client: ApiClient, terminal: Terminal) -> None:
    """List webhook endpoints, newest first."""
    found = client.list_all(ENDPOINTS)
    terminal.result(found, lambda: _endpoint_table(found))


@app.command()
@for_tenant
def deliveries(
    client: ApiClient,
    terminal: Terminal,
    *,
    endpoint_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Of this endpoint alone.")
    ] = None,
    status: Annotated[
        str | None, typer.Option(help="pending, delivered, failed or cancelled.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="About this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most deliveries.")] = 20,
) -> None:
    """List what was sent, newest first: to all endpoints and the webhooks of single jobs."""
    path = DELIVERIES if endpoint_id is None else f"{ENDPOINTS}/{endpoint_id}/deliveries"
    found = client.list_all(path, limit=limit, status=status, job_id=job)
    terminal.result(found, lambda: _delivery_table(found))


@app.command()
@for_tenant
def replay(
    client: ApiClient,
    terminal: Terminal,
    *,
    which: Annotated[
        str, typer.Argument(metavar="ID", help="A delivery, whd_…; or an endpoint, with --since.")
    ],
    since: Annotated[
        str | None,
        typer.Option(help="All of the endpoint's since then: 90m, 6h, 2d ago, or a time by ISO."),
    ] = None,
    status: Annotated[
        str | None, typer.Option(help="With --since: only those delivered, failed or cancelled.")
    ] = None,
) -> None:
    """Send deliveries again, with the same webhook-id."""
    if since is None and which.startswith("whe_"):
        raise CommandError("give --since to replay what an endpoint got", ExitCode.USAGE)
    if since is None:
        one = client.post(f"{DELIVERIES}/{which}/replay")
        terminal.result(one, lambda: f"{one['id']} is sent again")
        return
    body = {"since": parse_since(since, time.time())} | ({"status": status} if status else {})
    count = 0
    while True:
        part = client.post(f"{ENDPOINTS}/{which}/replay", body)
        count += part["replayed"]
        if not part["has_more"]:
            break
    told = part | {"replayed": count}
    terminal.result(told, lambda: f"sent again: {count}")


@app.command()
@for_tenant
def rotate(
    client: ApiClient,
    terminal: Terminal,
    endpoint_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Of this endpoint; left out: of the jobs' webhooks."),
    ] = None,
    keep_old: KeepOption = False,
) -> None:
    """Make a new signing secret, which is shown this once: an endpoint's, or the one that signs the
    webhooks of single jobs."""
    path = "/v1/webhook_signing_secret/rotate"
    if endpoint_id is not None:
        path = f"{ENDPOINTS}/{endpoint_id}/rotate_secret"
    made = client.post(path, {"keep_old_secret_active_for_24_hours": keep_old})
    terminal.result(made, lambda: made["signing_secret"])


@app.command(name="test")
@for_tenant
def send_sample(
    client: ApiClient,
    terminal: Terminal,
    endpoint_id: EndpointId,
    event: Annotated[
        str, typer.Option(help="Which event to send a sample of.")
    ] = "batch.completed",
) -> None:
    """Send a sample and show what the endpoint answers."""
    answer = client.post(f"{ENDPOINTS}/{endpoint_id}/test", {"event_type": event})
    terminal.result(answer, lambda: f"it answered {answer['status_code']}")


@app.command()
@for_tenant
def delete(client: ApiClient, terminal: Terminal, endpoint_id: EndpointId) -> None:
    """Delete a webhook endpoint, and what waits for it."""
    verbs.delete(client, terminal, f"{ENDPOINTS}/{endpoint_id}")


def parse_since(text: str, now: float) -> float:
    """Unix seconds of ``90m``, ``6h`` or ``2d`` ago, or of a time by ISO 8601, local unless it
    says otherwise. Raises CommandError (USAGE)."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isascii() and number.isdigit():
        return max(0.0, now - int(number) * _UNITS[unit])
    try:
        return max(0.0, datetime.fromisoformat(text).astimezone().timestamp())
    except (ValueError, OverflowError):
        raise CommandError(
            f"{text!r} is no time: write 90m, 6h, 2d or 2026-01-31T12:00", ExitCode.USAGE
        ) from None


def _endpoint_table(endpoints: list[Json]) -> RenderableType:
    rows = (
        (
            item["id"],
            item["name"],
            item["url"],
            _state(item),
            len(item["event_types"]),
            when(item["created_at"]),
        )
        for item in endpoints
    )
    return table("id", "name", "url", "state", "events", "created", rows=rows)


def _state(endpoint: Json) -> str:
    if not endpoint["enabled"]:
        return f"disabled ({endpoint['disabled_reason']})"
    circuit = endpoint["circuit"]
    return "answers" if circuit["failures"] == 0 else f"failed {circuit['failures']} times in a row"


def _delivery_table(found: list[Json]) -> RenderableType:
    rows = (
        (
            item["id"],
            item["event_type"],
            item["data_id"],
            item["status"],
            len(item["attempts"]),
            item["error_code"] or item["status_code"],
        )
        for item in found
    )
    return table("id", "event", "about", "status", "tries", "last", rows=rows)
