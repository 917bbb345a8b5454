"""``pressrun batch …``: a file of rows in, files of results out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.endings import told_problems
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.options import MetadataOption, NewestOption, WaitOption, parse_metadata
from pressrun.terminal import Terminal, table, when
from pressrun.transfers import download, upload
from pressrun.watching import TERMINAL_BATCH, display_for, snapshot_of, watch_batch

BATCHES = "/v1/batches"
LONGEST_FIRST_LINE_BYTES = 8 * 2**20
FILES = {"output_file_id": "output.jsonl", "error_file_id": "errors.jsonl"}

app = typer.Typer(no_args_is_help=True, help="Submit and follow batches.")

BatchId = Annotated[str, typer.Argument(metavar="ID", help="The batch's id, batch_….")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", help="Wait, then download output.jsonl and errors.jsonl here."),
]


@app.command()
@for_tenant
def submit(
    client: ApiClient,
    terminal: Terminal,
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, readable=True, help="Rows: one JSON a line."),
    ],
    *,
    endpoint: Annotated[
        str | None, typer.Option(help="What every row calls; default: the first row's `url`.")
    ] = None,
    window: Annotated[
        str, typer.Option(help="When it must be done: whole minutes, hours or days.")
    ] = "24h",
    metadata: MetadataOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every row, say what it would take, run none.")
    ] = False,
    watch: WaitOption = False,
    output: OutputOption = None,
) -> None:
    """Upload a file of rows and start a batch over it."""
    body = {
        "endpoint": endpoint or first_url(file),
        "completion_window": window,
        "metadata": parse_metadata(metadata),
    } | ({"dry_run": True} if dry_run else {})
    batch = submit_batch(client, file, body, terminal)
    if not watch and not dry_run and output is None:
        terminal.result(batch, lambda: batch["id"])
        return
    if not terminal.json_only:
        terminal.note(f"submitted {batch['id']}")
    follow(client, batch["id"], output, terminal)


@app.command()
@for_tenant
def watch(
    client: ApiClient,
    terminal: Terminal,
    batch_id: BatchId,
    output: OutputOption = None,
) -> None:
    """Follow a batch to its end. Ctrl-C stops the watching, not the batch."""
    follow(client, batch_id, output, terminal)


@app.command()
@for_tenant
def show(client: ApiClient, terminal: Terminal, batch_id: BatchId) -> None:
    """Show how far a batch is."""
    batch = client.get(f"{BATCHES}/{batch_id}")
    terminal.result(batch, lambda: describe(batch))


@app.command(name="download")
@for_tenant
def download_command(
    client: ApiClient,
    terminal: Terminal,
    batch_id: BatchId,
    output: Annotated[Path, typer.Option("--output", help="The folder to write to.")] = Path(),
) -> None:
    """Download a finished batch's output.jsonl and errors.jsonl."""
    batch = client.get(f"{BATCHES}/{batch_id}")
    if batch["status"] not in TERMINAL_BATCH:
        raise CommandError(f"{batch_id} is still {batch['status']}", ExitCode.REFUSED)
    files = download_results(client, batch, output, terminal)
    found = {name: str(path) for name, path in files.items()}
    terminal.result(found, lambda: "\n".join(found.values()) or "the batch left no files")


@app.command()
@for_tenant
def cancel(client: ApiClient, terminal: Terminal, batch_id: BatchId) -> None:
    """Stop a batch; rows that are done are kept."""
    batch = client.post(f"{BATCHES}/{batch_id}/cancel")
    terminal.result(batch, lambda: describe(batch))


@app.command(name="list")
@for_tenant
def list_command(
    client: ApiClient,
    terminal: Terminal,
    limit: NewestOption = 20,
) -> None:
    """List batches, newest first."""
    batches = client.list_all(BATCHES, limit=limit)
    terminal.result(batches, lambda: _listing(batches))


def submit_batch(client: ApiClient, file: Path, body: Json, terminal: Terminal) -> Json:
    """Uploads ``file`` and creates the batch; returns it."""
    uploaded = upload(client, file, "batch", terminal)
    return client.post(BATCHES, {**body, "input_file_id": uploaded["id"]})


def download_results(
    client: ApiClient, batch: Json, folder: Path, terminal: Terminal
) -> dict[str, Path]:
    """Fetches the files that the batch has, by the field that names them."""
    return {
        field: _fetched(client, batch[field], folder / name, terminal)
        for field, name in FILES.items()
        if batch.get(field)
    }


def _fetched(client: ApiClient, file_id: str, target: Path, terminal: Terminal) -> Path:
    download(client, f"/v1/files/{file_id}", target, terminal)
    return target


def first_url(file: Path) -> str:
    """The endpoint that the first row names. Raises CommandError (USAGE)."""
    try:
        with file.open("rb") as lines:
            url = json.loads(lines.readline(LONGEST_FIRST_LINE_BYTES))["url"]
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", ExitCode.USAGE) from None
    except (ValueError, KeyError, TypeError):
        url = None
    if not isinstance(url, str):
        raise CommandError(
            f"the first line of {file} is no row with a `url`: give --endpoint", ExitCode.USAGE
        )
    return url


def check_outcome(batch: Json, terminal: Terminal) -> None:
    """Returns for a batch that did something; otherwise raises CommandError (FAILED)."""
    counts = snapshot_of(batch)
    if batch["status"] != "completed":
        raise CommandError(f"{batch['id']} ended {batch['status']}{_first_error(batch)}")
    if counts.failed and not counts.completed:
        raise CommandError(f"all {counts.failed} rows of {batch['id']} failed")
    if counts.failed:
        terminal.note(f"{counts.failed} of {counts.total} rows failed; see the error file")


def describe(batch: Json) -> RenderableType:
    """A batch for people."""
    counts = snapshot_of(batch)
    fields = {
        "id": batch["id"],
        "status": batch["status"],
        "endpoint": batch["endpoint"],
        "rows": f"{counts.completed} completed, {counts.failed} failed, {counts.total} in all",
        "created": when(batch["created_at"]),
        **estimated(batch.get("estimate")),
        "output file": batch.get("output_file_id"),
        "error file": batch.get("error_file_id"),
    }
    return table("", "", rows=fields.items(), headed=False)


def estimated(estimate: Json | None) -> Json:
    """What a dry run found, for people."""
    if not estimate:
        return {}
    start = estimate.get("estimated_start")
    cost = estimate.get("cost") or {}
    shown = {
        "would be": f"{estimate['rows']} rows in {estimate['slices']} slices",
        "input tokens": estimate.get("input_tokens"),
        "output tokens": estimate.get("output_tokens"),
        "output tokens, at most": estimate.get("max_output_tokens"),
        "cost": f"{cost['expected']} {cost['currency']}" if "expected" in cost else None,
        "cost, at most": f"{cost['at_most']} {cost['currency']}" if "at_most" in cost else None,
        "can run now": "yes" if estimate["is_possible"] else "no: a pool has no worker",
        "would start": when(start) if start else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def follow(client: ApiClient, batch_id: str, output: Path | None, terminal: Terminal) -> None:
    """Watches a batch to its end, shows it, and fetches its files if ``output`` names a folder."""
    batch = watch_batch(client, batch_id, display_for(terminal))
    if output is not None:
        for path in download_results(client, batch, output, terminal).values():
            if not terminal.json_only:
                terminal.note(f"wrote {path}")
    terminal.result(batch, lambda: describe(batch))
    terminal.notes(told_problems((batch.get("errors") or {}).get("data")))
    check_outcome(batch, terminal)


def _first_error(batch: Json) -> str:
    errors = (batch.get("errors") or {}).get("data") or []
    return f": {errors[0]['message']}" if errors else ""


def _listing(batches: list[Json]) -> RenderableType:
    return table(
        "id",
        "status",
        "done",
        "failed",
        "rows",
        "created",
        rows=(
            (b["id"], b["status"], c.completed, c.failed, c.total, when(b["created_at"]))
            for b in batches
            for c in (snapshot_of(b),)
        ),
    )
