"""``pressrun produce`` and ``pressrun productions …``: a template and a table in, checked copy
out."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated

import typer

from pressrun.api_client import ApiClient, Json
from pressrun.batch_commands import parse_metadata
from pressrun.connection import ApiKeyOption, JsonOption, UrlOption, tenant_client
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.production_files import read_template, with_uploads
from pressrun.production_views import counts, described, listing, previewed
from pressrun.terminal import Terminal
from pressrun.transfers import download, uploaded_id
from pressrun.watching import Snapshot, Watched, display_for, poll

PRODUCTIONS = "/v1/productions"
ENDED = frozenset({"succeeded", "failed", "expired", "cancelled"})
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
SHOWN_ERRORS = 10

app = typer.Typer(no_args_is_help=True, help="Follow productions.")

ProductionId = Annotated[str, typer.Argument(metavar="ID", help="The production's id, prod_….")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the copy here: .csv, .jsonl or .parquet."),
]


def produce(
    template: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, readable=True, help="A YAML head, a prompt."),
    ],
    *,
    data: Annotated[
        str, typer.Option(help="The table, CSV, JSONL or Parquet; or the id of an uploaded one.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Writes the copy, where the template names none.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option("-n", min=1, max=16, help="Candidates a row (and model).")
    ] = None,
    output: OutputOption = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show the prompts of the first rows, run nothing.")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, max=20, help="Of a preview.")] = 5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every row, say what it would take.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed, the same draws.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="key=value; may be repeated, up to 16 times.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Wait for its end.")] = True,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Write copy for every row of a table, check it, and join it to the table."""
    terminal = Terminal(json_only=json_only)
    body: Json = {"template": read_template(template), "output_format": _format(output)}
    given = {"model": model, "n": candidates}
    body |= {name: value for name, value in given.items() if value is not None}
    if seed is not None:
        body["sampling"] = {"seed": seed}
    with tenant_client(url, api_key) as client:
        body["data_file_id"] = uploaded_id(client, data, "user_data", terminal)
        body["template"] = with_uploads(client, body["template"], template.parent, terminal)
        if preview:
            shown = client.post(f"{PRODUCTIONS}/preview", body | {"rows": rows})
            terminal.result(shown, lambda: previewed(shown))
            return
        body |= {"metadata": parse_metadata(metadata or []), "dry_run": dry_run}
        made = client.post(PRODUCTIONS, body, idempotency_key=str(uuid.uuid4()))
        if not watch:
            terminal.result(made, lambda: made["id"])
            return
        if not json_only:
            terminal.note(f"submitted {made['id']}")
        follow(client, made["id"], None if dry_run else output, terminal)


@app.command()
def watch(
    production_id: ProductionId,
    output: OutputOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Follow a production to its end. Ctrl-C stops the watching, not the production."""
    with tenant_client(url, api_key) as client:
        follow(client, production_id, output, Terminal(json_only=json_only))


@app.command()
def show(
    production_id: ProductionId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Show how far a production is, and its counts."""
    with tenant_client(url, api_key) as client:
        found = client.get(f"{PRODUCTIONS}/{production_id}")
    Terminal(json_only=json_only).result(found, lambda: described(found))


@app.command(name="download")
def download_command(
    production_id: ProductionId,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write to.")],
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Download the output of a production that has ended."""
    terminal = Terminal(json_only=json_only)
    with tenant_client(url, api_key) as client:
        found = client.get(f"{PRODUCTIONS}/{production_id}")
        if found["output_file_id"] is None:
            raise CommandError(f"{production_id} has no output", ExitCode.REFUSED)
        _fetch(client, found, output, terminal)
    terminal.result({"output": str(output)}, lambda: str(output))


@app.command()
def cancel(
    production_id: ProductionId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Stop a production; what is done by then is judged and kept."""
    with tenant_client(url, api_key) as client:
        found = client.post(f"{PRODUCTIONS}/{production_id}/cancel")
    Terminal(json_only=json_only).result(found, lambda: f"{found['id']}: {found['status']}")


@app.command(name="list")
def list_command(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """List productions, newest first."""
    with tenant_client(url, api_key) as client:
        found = client.list_all(PRODUCTIONS, limit=limit)
    Terminal(json_only=json_only).result(found, lambda: listing(found))


def follow(client: ApiClient, production_id: str, output: Path | None, terminal: Terminal) -> None:
    """Watches a production to its end, fetches its output if ``output`` names a file, and shows
    its counts. Raises CommandError for any other end than success."""
    found = ended_production(client, production_id, terminal)
    if output is not None and found["output_file_id"] is not None:
        _fetch(client, found, output, terminal)
    terminal.result(found, lambda: counts(found))
    _check_outcome(found, terminal)


def ended_production(client: ApiClient, production_id: str, terminal: Terminal) -> Json:
    """Watches a production to its end, whatever that is. Raises CommandError (INTERRUPTED)."""
    watched = Watched("production", production_id, ENDED, _snapshot, PRODUCTIONS)
    try:
        return poll(client, watched, display_for(terminal))
    except CommandError as error:
        if error.exit_code is not ExitCode.INTERRUPTED:
            raise
        message = "stopped watching; the production goes on: pressrun productions watch"
        raise CommandError(f"{message} {production_id}", ExitCode.INTERRUPTED) from None


def _fetch(client: ApiClient, production: Json, output: Path, terminal: Terminal) -> None:
    download(client, f"/v1/files/{production['output_file_id']}", output, terminal)
    if not terminal.json_only:
        terminal.note(f"wrote {output}")


def _snapshot(production: Json) -> Snapshot:
    batch = production["batch"]
    place = f"round {production['round'] + 1}"
    if production["phases"] > 1:
        place += f", phase {production['phase'] + 1} of {production['phases']}"
    if batch is not None:
        place += f", {batch['done']} of {batch['rows']} answered"
    return Snapshot(
        production["status"],
        production["kept"],
        0,
        production["lines"],
        "lines",
        remark=place if production["status"] == "running" else "",
    )


def _check_outcome(production: Json, terminal: Terminal) -> None:
    """Raises CommandError (FAILED) unless something was made."""
    error, summary = production["error"] or {}, production["summary"]
    lines = error.get("lines") or []
    for line in lines[:SHOWN_ERRORS]:
        place = f"line {line['line']}: " if line.get("line") else ""
        terminal.note(f"{place}{line['message']} ({line['code']})")
    if len(lines) > SHOWN_ERRORS:
        terminal.note(f"… and {len(lines) - SHOWN_ERRORS} more")
    if production["status"] != "succeeded":
        reason = f": {error['message']} ({error['code']})" if error else ""
        raise CommandError(f"{production['id']} ended {production['status']}{reason}")
    if summary is not None and not summary["succeeded"]:
        raise CommandError(f"no line of {production['id']} was kept")


def _format(output: Path | None) -> str:
    """Raises CommandError (USAGE) for a name that does not tell."""
    if output is None:
        return "csv"
    if output.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise CommandError(f"--output ends with one of {known}", ExitCode.USAGE)
    return FORMATS[output.suffix.lower()]
