"""``pressrun produce`` and ``pressrun productions …``: a template and a table in, checked copy
out."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated

import typer

from pressrun import verbs
from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.endings import not_succeeded, told_problems
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.options import MetadataOption, NewestOption, WatchOption, parse_metadata
from pressrun.production_files import read_template, with_uploads
from pressrun.production_views import counts, described, listing, previewed, problems
from pressrun.terminal import Terminal
from pressrun.transfers import download, uploaded_id
from pressrun.watching import Snapshot, Watched, display_for, poll

PRODUCTIONS = "/v1/productions"
ENDED = frozenset({"succeeded", "failed", "expired", "cancelled"})
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}

app = typer.Typer(no_args_is_help=True, help="Follow productions.")

ProductionId = Annotated[str, typer.Argument(metavar="ID", help="The production's id, prod_….")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the copy here: .csv, .jsonl or .parquet."),
]


@for_tenant
def produce(
    client: ApiClient,
    terminal: Terminal,
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
    metadata: MetadataOption = None,
    watch: WatchOption = True,
) -> None:
    """Write copy for every row of a table, check it, and join it to the table."""
    body: Json = {"template": read_template(template), "output_format": _format(output)}
    given = {"model": model, "n": candidates}
    body |= {name: value for name, value in given.items() if value is not None}
    if seed is not None:
        body["sampling"] = {"seed": seed}
    body["data_file_id"] = uploaded_id(client, data, "user_data", terminal)
    body["template"] = with_uploads(client, body["template"], template.parent, terminal)
    if preview:
        shown = client.post(f"{PRODUCTIONS}/preview", body | {"rows": rows})
        terminal.result(shown, lambda: previewed(shown, pictured=terminal.shows_pictures))
        return
    body |= {"metadata": parse_metadata(metadata), "dry_run": dry_run}
    made = client.post(PRODUCTIONS, body, idempotency_key=str(uuid.uuid4()))
    if not watch:
        terminal.result(made, lambda: made["id"])
        return
    if not terminal.json_only:
        terminal.note(f"submitted {made['id']}")
    follow(client, made["id"], None if dry_run else output, terminal)


@app.command()
@for_tenant
def watch(
    client: ApiClient,
    terminal: Terminal,
    production_id: ProductionId,
    output: OutputOption = None,
) -> None:
    """Follow a production to its end. Ctrl-C stops the watching, not the production."""
    follow(client, production_id, output, terminal)


@app.command()
@for_tenant
def show(client: ApiClient, terminal: Terminal, production_id: ProductionId) -> None:
    """Show how far a production is, and its counts."""
    found = client.get(f"{PRODUCTIONS}/{production_id}")
    terminal.result(found, lambda: described(found, pictured=terminal.shows_pictures))


@app.command(name="download")
@for_tenant
def download_command(
    client: ApiClient,
    terminal: Terminal,
    production_id: ProductionId,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write to.")],
) -> None:
    """Download the output of a production that has ended."""
    found = client.get(f"{PRODUCTIONS}/{production_id}")
    if found["output_file_id"] is None:
        raise CommandError(f"{production_id} has no output", ExitCode.REFUSED)
    _fetch(client, found, output, terminal)
    terminal.result({"output": str(output)}, lambda: str(output))


@app.command()
@for_tenant
def cancel(client: ApiClient, terminal: Terminal, production_id: ProductionId) -> None:
    """Stop a production; what is done by then is judged and kept."""
    verbs.ask(client, terminal, f"{PRODUCTIONS}/{production_id}/cancel")


@app.command(name="list")
@for_tenant
def list_command(
    client: ApiClient,
    terminal: Terminal,
    limit: NewestOption = 20,
) -> None:
    """List productions, newest first."""
    found = client.list_all(PRODUCTIONS, limit=limit)
    terminal.result(found, lambda: listing(found))


def follow(client: ApiClient, production_id: str, output: Path | None, terminal: Terminal) -> None:
    """Watches a production to its end, fetches its output if ``output`` names a file, and shows
    its counts. Raises CommandError for any other end than success."""
    found = ended_production(client, production_id, terminal)
    if output is not None and found["output_file_id"] is not None:
        _fetch(client, found, output, terminal)
    terminal.result(found, lambda: counts(found, pictured=terminal.shows_pictures))
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
    """While a batch is asked, its answers: lines are kept at the end of a round, all at once."""
    status, batch = production["status"], production["batch"]
    kept, lines = production["kept"], production["lines"]
    if status != "running":
        return Snapshot(status, kept, 0, lines, "lines", remark="")
    place = f"round {production['round'] + 1}"
    if production["phases"] > 1:
        place += f", phase {production['phase'] + 1} of {production['phases']}"
    if batch is None:
        return Snapshot(status, kept, 0, lines, "lines", remark=place)
    remark = f"{place}, {kept} of {lines} lines kept"
    return Snapshot(status, batch["done"], 0, batch["rows"], "answers", remark=remark)


def _check_outcome(production: Json, terminal: Terminal) -> None:
    """Raises CommandError (FAILED) unless something was made."""
    error, summary = production["error"], production["summary"]
    terminal.notes(told_problems(problems(production)))
    if production["status"] != "succeeded":
        raise not_succeeded(production["id"], production["status"], error)
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
