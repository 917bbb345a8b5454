"""``pressrun tune …``: examples in, a model of your own out."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any

import typer

from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.endings import not_succeeded, told_problems
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.options import MetadataOption, NewestOption, WaitOption, parse_metadata
from pressrun.sweep_views import read_sweep, trials_of, with_trials
from pressrun.terminal import Terminal, table, when
from pressrun.transfers import uploaded_id
from pressrun.tuning_views import describe, snapshot_of, status_of
from pressrun.watching import Watched, display_for, poll

JOBS = "/v1/fine_tuning/jobs"
ENDED = frozenset({"succeeded", "failed", "cancelled"})
OF_METHOD = ("adapter",)
"""Settings that are the method's own; the others are hyperparameters, ``lora.rank`` is its lora's.
"""

app = typer.Typer(no_args_is_help=True, help="Fine-tune models and follow their training.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, ftjob-….")]


@app.command()
@for_tenant
def create(
    client: ApiClient,
    terminal: Terminal,
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
    metadata: MetadataOption = None,
    sweep: Annotated[
        str | None, typer.Option(help="Search: a JSON file with trials, space, metric, ….")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="So many, whatever the file of --sweep says.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only judge the data and say what it takes.")
    ] = False,
    watch: WaitOption = False,
) -> None:
    """Upload examples and start a fine-tuning job."""
    body = {
        "model": model,
        "method": {"type": method, method: parse_settings(settings or [])},
        "suffix": suffix,
        "seed": seed,
        "metadata": parse_metadata(metadata),
        "dry_run": dry_run,
    }
    if (searched := read_sweep(sweep, trials)) is not None:
        body["sweep"] = searched
    body["training_file"] = uploaded_id(client, file, "fine-tune", terminal)
    if validation is not None:
        body["validation_file"] = uploaded_id(client, validation, "fine-tune", terminal)
    job = client.post(JOBS, body, idempotency_key=str(uuid.uuid4()))
    if not watch:
        terminal.result(job, lambda: job["id"])
        return
    if not terminal.json_only:
        terminal.note(f"submitted {job['id']}")
    _follow(client, job["id"], terminal)


@app.command()
@for_tenant
def watch(client: ApiClient, terminal: Terminal, job_id: JobId) -> None:
    """Follow a training to its end. Ctrl-C stops the watching, not the training."""
    _follow(client, job_id, terminal)


@app.command(name="show")
@app.command()
@for_tenant
def get(client: ApiClient, terminal: Terminal, job_id: JobId) -> None:
    """Show a fine-tuning job, and of a sweep every trial."""
    job = client.get(f"{JOBS}/{job_id}")
    trials = [] if terminal.json_only else trials_of(client, job)
    terminal.result(job, lambda: with_trials(describe(job), job, trials))


@app.command(name="list")
@for_tenant
def list_command(
    client: ApiClient,
    terminal: Terminal,
    limit: NewestOption = 20,
    parent: Annotated[
        str | None, typer.Option(help="Only trials of this sweep; none: no trials.")
    ] = None,
) -> None:
    """List fine-tuning jobs, newest first."""
    found = client.list_all(JOBS, limit=limit, parent=parent)
    rows = (
        (job["id"], status_of(job), job["model"], job["fine_tuned_model"], when(job["created_at"]))
        for job in found
    )
    terminal.result(found, lambda: table("id", "status", "model", "made", "created", rows=rows))


@app.command()
@for_tenant
def events(
    client: ApiClient,
    terminal: Terminal,
    job_id: JobId,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 50,
) -> None:
    """List what happened to a job, the newest last."""
    found = client.list_all(f"{JOBS}/{job_id}/events", limit=limit)[::-1]
    rows = ((when(event["created_at"]), event["level"], event["message"]) for event in found)
    terminal.result(found, lambda: table("when", "level", "what", rows=rows, headed=False))


@app.command()
@for_tenant
def checkpoints(client: ApiClient, terminal: Terminal, job_id: JobId) -> None:
    """List a job's checkpoints, each of which can be asked by name."""
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
    terminal.result(found, lambda: table("step", "valid loss", "", "model", rows=rows))


@app.command()
@for_tenant
def cancel(client: ApiClient, terminal: Terminal, job_id: JobId) -> None:
    """Stop a training; its checkpoints stay."""
    _act(client, terminal, job_id, "cancel")


@app.command()
@for_tenant
def pause(client: ApiClient, terminal: Terminal, job_id: JobId) -> None:
    """Let a training save a checkpoint and wait."""
    _act(client, terminal, job_id, "pause")


@app.command()
@for_tenant
def resume(client: ApiClient, terminal: Terminal, job_id: JobId) -> None:
    """Let a paused training go on."""
    _act(client, terminal, job_id, "resume")


def _act(client: ApiClient, terminal: Terminal, job_id: str, action: str) -> None:
    job = client.post(f"{JOBS}/{job_id}/{action}")
    terminal.result(job, lambda: f"{job['id']}: {status_of(job)}")


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
    terminal.notes(told_problems((job["error"] or {}).get("lines")))
    raise not_succeeded(job_id, job["status"], job["error"])
