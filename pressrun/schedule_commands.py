"""``pressrun schedules …``: productions that come again."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from pressrun import verbs
from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.options import NewestOption
from pressrun.production_files import read_template
from pressrun.terminal import Terminal, table, when

SCHEDULES = "/v1/schedules"

app = typer.Typer(no_args_is_help=True, help="Productions that come again, of what is new.")

ScheduleId = Annotated[str, typer.Argument(metavar="ID", help="The schedule's id, sched_….")]


@app.command()
@for_tenant
def create(
    client: ApiClient,
    terminal: Terminal,
    template: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, readable=True, help="A YAML head, a prompt."),
    ],
    *,
    name: Annotated[str, typer.Option(help="For people.")],
    feed: Annotated[str | None, typer.Option(help="The URL of a feed or table.")] = None,
    folder: Annotated[
        str | None, typer.Option(help="A folder of the operators': root/path.")
    ] = None,
    every: Annotated[str, typer.Option(help="hour, day, or hours: 6h.")] = "day",
    at: Annotated[str | None, typer.Option(help="Time of day, 07:30; else from now on.")] = None,
    timezone: Annotated[str, typer.Option(help="Of --at, such as Europe/Berlin.")] = "UTC",
    key: Annotated[
        list[str] | None, typer.Option(help="A column that makes a row known; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Where the template names none.")] = None,
) -> None:
    """Write copy of what is new in a feed or a folder, every hour or day."""
    source = {"url": feed, "folder": folder}
    given = {"at": at, "key": key, "model": model}
    body: Json = {
        "name": name,
        "template": read_template(template),
        "source": {kind: value for kind, value in source.items() if value is not None},
        "every": _every(every),
        "timezone": timezone,
    }
    body |= {field: value for field, value in given.items() if value is not None}
    made = client.post(SCHEDULES, body, idempotency_key=str(uuid.uuid4()))
    terminal.result(made, lambda: made["id"])


@app.command(name="list")
@for_tenant
def list_command(
    client: ApiClient,
    terminal: Terminal,
    limit: NewestOption = 20,
) -> None:
    """List schedules, newest first."""
    found = client.list_all(SCHEDULES, limit=limit)
    terminal.result(found, lambda: _listing(found))


@app.command()
@for_tenant
def runs(
    client: ApiClient,
    terminal: Terminal,
    schedule_id: ScheduleId,
    limit: NewestOption = 20,
) -> None:
    """List the last runs of a schedule, with what each found and came to."""
    found = client.list_all(f"{SCHEDULES}/{schedule_id}/runs", limit=limit)
    terminal.result(found, lambda: _runs(found))


@app.command()
@for_tenant
def run(client: ApiClient, terminal: Terminal, schedule_id: ScheduleId) -> None:
    """Run once now, besides the times that it is due."""
    verbs.ask(client, terminal, f"{SCHEDULES}/{schedule_id}/run")


@app.command()
@for_tenant
def pause(client: ApiClient, terminal: Terminal, schedule_id: ScheduleId) -> None:
    """Begin no further runs; an open one goes on."""
    verbs.ask(client, terminal, f"{SCHEDULES}/{schedule_id}/pause")


@app.command()
@for_tenant
def resume(client: ApiClient, terminal: Terminal, schedule_id: ScheduleId) -> None:
    """Go on with the next time that it is due."""
    verbs.ask(client, terminal, f"{SCHEDULES}/{schedule_id}/resume")


@app.command()
@for_tenant
def delete(client: ApiClient, terminal: Terminal, schedule_id: ScheduleId) -> None:
    """End a schedule and forget its runs."""
    verbs.delete(client, terminal, f"{SCHEDULES}/{schedule_id}")


def _every(text: str) -> Any:
    """Raises CommandError (USAGE)."""
    if text in {"hour", "day"}:
        return text
    if text.endswith("h") and text[:-1].isascii() and text[:-1].isdigit():
        return {"hours": int(text[:-1])}
    raise CommandError("--every is hour, day, or hours such as 6h", ExitCode.USAGE)


def _listing(found: list[Json]) -> Any:
    rows = (
        (one["id"], one["name"], _status(one), _often(one), when(one["next_run_at"]), _place(one))
        for one in found
    )
    return table("id", "name", "status", "every", "next run", "source", rows=rows)


def _status(schedule: Json) -> str:
    reason = schedule["paused_reason"]
    return f"{schedule['status']} ({reason})" if reason == "failures" else str(schedule["status"])


def _often(schedule: Json) -> str:
    every = schedule["every"]
    return every if isinstance(every, str) else f"{every['hours']} hours"


def _place(schedule: Json) -> str:
    return str(schedule["source"]["url"] or schedule["source"]["folder"])


def _runs(found: list[Json]) -> Any:
    rows = (
        (
            when(one["created_at"]),
            one["status"],
            one["rows_found"],
            one["rows_new"],
            one["rows_bad"],
            one["lines_kept"],
            one["production_id"] or (one["error"] or {}).get("code"),
        )
        for one in found
    )
    return table("began", "status", "rows", "new", "bad", "kept", "production or error", rows=rows)
