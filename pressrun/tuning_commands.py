"""``pressrun tune …``: examples in, a model of your own out."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any

import typer

from pressrun.api_client import ApiClient, Json
from pressrun.batch_commands import parse_metadata
from pressrun.connection import ApiKeyOption, JsonOption, UrlOption, tenant_client
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.sweep_views import read_sweep, trials_of, with_trials
from pressrun.terminal import Terminal, table, when
from pressrun.transfers import uploaded_id
from pressrun.tuning_views import describe, snapshot_of, status_of
from pressrun.watching import Watched, display_for, poll

JOBS = "/v1/fine_tuning/jobs"
ENDED = frozenset({"succeeded", "failed", "cancelled"})
SHOWN_LINES = 10
OF_METHOD = ("adapter",)
"""Settings that are the method's own; the others are hyperparameters, ``lora.rank`` is its lora's.
"""

app = typer.Typer(no_args_is_help=True, help="Fine-tune models and follow their training.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, ftjob-….")]


@app.command()
def create(
    file: Annotated[str, typer.Argument(help="Examples: a file, or the id of an uploaded one.")],
    *,
    model: Annotated[str, typer.Option(help="What to tune; a recipe's own name: from nothing.")],
    method: Annotated[str, typer.Option(help="The recipe: supervised, dpo, …")] = "supervised",
    validation: Annotated[
        str | None, typer.Option(help="Examples to judge by: a file or the id of one.")
    ] = None,
    suffix: Annotated[str | None, typer.Option(help="A part of the new model's name.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="n_epochs=3, lora.rank=8, adapter=none; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="For the same training again.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="key=value; may be repeated, up to 16 times.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Search: a JSON file with trials, space, metric, ….")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="So many, whatever the file of --sweep says.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only judge the data and say what it takes.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for its end.")] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Upload examples and start a fine-tuning job."""
    terminal = Terminal(json_only=json_only)
    body = {
        "model": model,
        "method": {"type": method, method: parse_settings(settings or [])},
        "suffix": suffix,
        "seed": seed,
        "metadata": parse_metadata(metadata or []),
        "dry_run": dry_run,
    }
    if (searched := read_sweep(sweep, trials)) is not None:
        body["sweep"] = searched
    with tenant_client(url, api_key) as client:
        body["training_file"] = uploaded_id(client, file, "fine-tune", terminal)
        if validation is not None:
            body["validation_file"] = uploaded_id(client, validation, "fine-tune", terminal)
        job = client.post(JOBS, body, idempotency_key=str(uuid.uuid4()))
        if not watch:
            terminal.result(job, lambda: job["id"])
            return
        if not json_only:
            terminal.note(f"submitted {job['id']}")
        _follow(client, job["id"], terminal)


@app.command()
def watch(
    job_id: JobId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Follow a training to its end. Ctrl-C stops the watching, not the training."""
    with tenant_client(url, api_key) as client:
        _follow(client, job_id, Terminal(json_only=json_only))


@app.command(name="show")
@app.command()
def get(
    job_id: JobId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Show a fine-tuning job, and of a sweep every trial."""
    with tenant_client(url, api_key) as client:
        job = client.get(f"{JOBS}/{job_id}")
        trials = [] if json_only else trials_of(client, job)
    Terminal(json_only=json_only).result(job, lambda: with_trials(describe(job), job, trials))


@app.command(name="list")
def list_command(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    parent: Annotated[
        str | None, typer.Option(help="Only trials of this sweep; none: no trials.")
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """List fine-tuning jobs, newest first."""
    with tenant_client(url, api_key) as client:
        found = client.list_all(JOBS, limit=limit, parent=parent)
    rows = (
        (job["id"], status_of(job), job["model"], job["fine_tuned_model"], when(job["created_at"]))
        for job in found
    )
    Terminal(json_only=json_only).result(
        found, lambda: table("id", "status", "model", "made", "created", rows=rows)
    )


@app.command()
def events(
    job_id: JobId,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 50,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """List what happened to a job, the newest last."""
    with tenant_client(url, api_key) as client:
        found = client.list_all(f"{JOBS}/{job_id}/events", limit=limit)[::-1]
    rows = ((when(event["created_at"]), event["level"], event["message"]) for event in found)
    Terminal(json_only=json_only).result(
        found, lambda: table("when", "level", "what", rows=rows, headed=False)
    )


@app.command()
def checkpoints(
    job_id: JobId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """List a job's checkpoints, each of which can be asked by name."""
    with tenant_client(url, api_key) as client:
        found = client.list_all(f"{JOBS}/{job_id}/checkpoints")
    rows = (
        (
            item["step_number"],
            item["metrics"].get("valid_loss"),
            "best" if item["best"] else "",
            item["fine_tuned_model_checkpoint"],
        )
        for item in found
    )
    Terminal(json_only=json_only).result(
        found, lambda: table("step", "valid loss", "", "model", rows=rows)
    )


@app.command()
def cancel(
    job_id: JobId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Stop a training; its checkpoints stay."""
    _act(job_id, "cancel", url, api_key, json_only=json_only)


@app.command()
def pause(
    job_id: JobId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Let a training save a checkpoint and wait."""
    _act(job_id, "pause", url, api_key, json_only=json_only)


@app.command()
def resume(
    job_id: JobId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Let a paused training go on."""
    _act(job_id, "resume", url, api_key, json_only=json_only)


def _act(
    job_id: str, action: str, url: str | None, api_key: str | None, *, json_only: bool
) -> None:
    with tenant_client(url, api_key) as client:
        job = client.post(f"{JOBS}/{job_id}/{action}")
    Terminal(json_only=json_only).result(job, lambda: f"{job['id']}: {status_of(job)}")


def parse_settings(pairs: list[str]) -> Json:
    """``["n_epochs=3", "lora.rank=8"]`` as a method's options. Raises CommandError (USAGE)."""
    options: Json = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        group, dot, member = name.partition(".")
        if not (equals and name) or (dot and (group != "lora" or not member)):
            raise CommandError(f"--set takes name=value, not {pair!r}", ExitCode.USAGE)
        if dot:
            options.setdefault("lora", {})[member] = _value(value)
        elif name in OF_METHOD:
            options[name] = value
        else:
            options.setdefault("hyperparameters", {})[name] = _value(value)
    return options


def _value(text: str) -> Any:
    """A number, a list, true or false; anything else is text, such as ``auto``."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _follow(client: ApiClient, job_id: str, terminal: Terminal) -> None:
    watched = Watched("tune", job_id, ENDED, snapshot_of, JOBS)
    job = poll(client, watched, display_for(terminal))
    trials = [] if terminal.json_only else trials_of(client, job)
    terminal.result(job, lambda: with_trials(describe(job), job, trials))
    if job["status"] == "succeeded":
        return
    error = job["error"] or {}
    lines = error.get("lines") or []
    for line in lines[:SHOWN_LINES]:
        where = f"line {line['line']}: " if line.get("line") else ""
        terminal.note(f"{where}{line['message']} ({line['code']})")
    if len(lines) > SHOWN_LINES:
        terminal.note(f"… and {len(lines) - SHOWN_LINES} more")
    reason = f": {error['message']} ({error['code']})" if error else ""
    raise CommandError(f"{job_id} ended {job['status']}{reason}")
