"""``pressrun monitors …``: texts that are watched."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pressrun import verbs
from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.options import NewestOption
from pressrun.terminal import Terminal, table, when

MONITORS = "/v1/monitors"
TEXTS_A_CALL = 500
MOST_LINE = 100_000
SPARKS = "▁▂▃▄▅▆▇█"

app = typer.Typer(no_args_is_help=True, help="Texts that are judged as they come.")

MonitorId = Annotated[str, typer.Argument(metavar="ID", help="The monitor's id, monitor_….")]


@app.command()
@for_tenant
def create(
    client: ApiClient,
    terminal: Terminal,
    *,
    name: Annotated[str, typer.Option(help="For people.")],
    model: Annotated[str, typer.Option(help="A classifier, or an alias.")],
    label: Annotated[str, typer.Option(help="Whose share is watched.")],
    limit: Annotated[float, typer.Option(min=0, max=1, help="Told of when it is passed: 0.3.")],
    minimum: Annotated[int, typer.Option(min=1, help="Judged texts of a window.")] = 20,
    minutes: Annotated[int, typer.Option(min=1, help="Length of a window.")] = 60,
    feed: Annotated[str | None, typer.Option(help="The URL of a feed or table.")] = None,
    folder: Annotated[str | None, typer.Option(help="A folder of the operators'.")] = None,
) -> None:
    """Watch a feed, a folder, or texts that are posted."""
    body: Json = {
        "name": name,
        "model": model,
        "label": label,
        "limit": limit,
        "minimum": minimum,
        "window": {"minutes": minutes},
    }
    source = {"url": feed, "folder": folder}
    if feed is not None or folder is not None:
        body["source"] = {kind: value for kind, value in source.items() if value is not None}
    made = client.post(MONITORS, body, idempotency_key=str(uuid.uuid4()))
    terminal.result(made, lambda: made["id"])


@app.command()
@for_tenant
def post(
    client: ApiClient,
    terminal: Terminal,
    monitor_id: MonitorId,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A text on each line, UTF-8.")
    ],
) -> None:
    """Post the lines of a file."""
    accepted = 0
    lines = _lines(file)
    while texts := list(islice(lines, TEXTS_A_CALL)):
        path = f"{MONITORS}/{monitor_id}/texts"
        made = client.post(path, {"texts": texts}, idempotency_key=str(uuid.uuid4()))
        accepted += made["accepted"]
    terminal.result({"accepted": accepted}, lambda: f"{accepted} texts")


@app.command(name="list")
@for_tenant
def list_command(
    client: ApiClient,
    terminal: Terminal,
    limit: NewestOption = 20,
) -> None:
    """List monitors, newest first."""
    found = client.list_all(MONITORS, limit=limit)
    terminal.result(found, lambda: _listing(found))


@app.command()
@for_tenant
def show(
    client: ApiClient,
    terminal: Terminal,
    monitor_id: MonitorId,
    windows: Annotated[int, typer.Option(min=1, help="How many windows, the latest.")] = 24,
) -> None:
    """Show the latest windows: counts and a line for each label, and where it alerted."""
    monitor = client.get(f"{MONITORS}/{monitor_id}")
    found = client.list_all(f"{MONITORS}/{monitor_id}/windows", limit=windows)
    if not terminal.json_only and monitor["error"] is not None:
        terminal.note(f"{monitor['error']['message']} ({monitor['error']['code']})")
    shown = {"monitor": monitor, "windows": found}
    terminal.result(shown, lambda: labels_table(monitor, found))


@app.command()
@for_tenant
def windows(
    client: ApiClient,
    terminal: Terminal,
    monitor_id: MonitorId,
    limit: NewestOption = 20,
) -> None:
    """List windows, newest first."""
    found = client.list_all(f"{MONITORS}/{monitor_id}/windows", limit=limit)
    terminal.result(found, lambda: _windows(found))


@app.command()
@for_tenant
def pause(client: ApiClient, terminal: Terminal, monitor_id: MonitorId) -> None:
    """Take and judge no texts for a while."""
    verbs.ask(client, terminal, f"{MONITORS}/{monitor_id}/pause")


@app.command()
@for_tenant
def resume(client: ApiClient, terminal: Terminal, monitor_id: MonitorId) -> None:
    """Go on."""
    verbs.ask(client, terminal, f"{MONITORS}/{monitor_id}/resume")


@app.command()
@for_tenant
def delete(client: ApiClient, terminal: Terminal, monitor_id: MonitorId) -> None:
    """End a monitor and forget its counts."""
    verbs.delete(client, terminal, f"{MONITORS}/{monitor_id}")


def sparkline(shares: list[float | None]) -> str:
    """A sign for each share of 0 to 1; a dot where nothing was judged."""
    top = len(SPARKS) - 1
    return "".join("·" if share is None else SPARKS[round(share * top)] for share in shares)


def labels_table(monitor: Json, newest_first: list[Json]) -> Any:
    """A row for each label: how many, their share, and how the share went over the windows."""
    found = list(reversed(newest_first))
    judged = sum(one["judged"] for one in found)
    counts: dict[str, int] = {}
    for one in found:
        for label, count in one["labels"].items():
            counts[label] = counts.get(label, 0) + count
    rows: list[tuple[object, ...]] = []
    for label in sorted(counts, key=lambda name: (-counts[name], name)):
        shares = [
            one["labels"].get(label, 0) / one["judged"] if one["judged"] else None for one in found
        ]
        mark = f"{label} (limit {monitor['limit']:.0%})" if label == monitor["label"] else label
        rows.append((mark, counts[label], f"{counts[label] / judged:.1%}", sparkline(shares)))
    alerts = "".join("!" if one["alerted_at"] is not None else " " for one in found)
    if alerts.strip():
        rows.append(("alerts", alerts.count("!"), "", alerts))
    return table("label", "texts", "share", f"last {len(found)} windows", rows=rows)


def _lines(path: Path) -> Iterator[str]:
    """Those that are not blank. Raises CommandError (USAGE)."""
    try:
        with path.open(encoding="utf-8") as file:
            while line := file.readline(MOST_LINE + 1):
                if len(line) > MOST_LINE:
                    message = f"{path} has a line of over {MOST_LINE} characters"
                    raise CommandError(message, ExitCode.USAGE)
                if line.strip():
                    yield line.strip()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.USAGE) from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8", ExitCode.USAGE) from None


def _listing(found: list[Json]) -> Any:
    rows = (
        (
            one["id"],
            one["name"],
            one["status"],
            f"{one['label']} > {one['limit']:.0%}",
            f"{one['window']['minutes']} min",
            one["waiting"],
            (one["error"] or {}).get("code"),
        )
        for one in found
    )
    return table("id", "name", "status", "alert", "window", "waiting", "error", rows=rows)


def _windows(found: list[Json]) -> Any:
    rows = (
        (
            when(one["starts_at"]),
            one["texts"],
            one["judged"],
            one["failed"],
            None if one["share"] is None else f"{one['share']:.1%}",
            None if one["alerted_at"] is None else when(one["alerted_at"]),
        )
        for one in found
    )
    return table("window", "texts", "judged", "failed", "share", "alerted", rows=rows)
