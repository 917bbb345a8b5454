"""``pressrun models …``: what may be asked for by name, and aliases of it that move."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer
from rich.console import RenderableType

from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.exit_codes import CommandError
from pressrun.job_watching import watch_job
from pressrun.options import NewestOption
from pressrun.server_commands import models_app
from pressrun.terminal import Terminal, table, when
from pressrun.transfers import uploaded_id

__all__ = ["models_app"]

ALIASES = "/v1/model_aliases"

AliasName = Annotated[str, typer.Argument(metavar="NAME", help="Such as news-writer@production.")]


@models_app.command()
@for_tenant
def alias(
    client: ApiClient,
    terminal: Terminal,
    name: AliasName,
    model: Annotated[str, typer.Argument(help="The model that is to hold it.")],
    *,
    gate: Annotated[
        str | None,
        typer.Option(help="Examples, a file or the id of one: move only if it is better on them."),
    ] = None,
    metric: Annotated[str, typer.Option(help="What better means for --gate.")] = "loss",
    min_improvement: Annotated[float, typer.Option(help="By more than this much.")] = 0.0,
    expect: Annotated[
        str | None, typer.Option(help="Refuse unless this model holds the alias now.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the gate's verdict.")] = False,
) -> None:
    """Make an alias, or move it to another model."""
    body: Json = {"model": model} | ({} if expect is None else {"expected_model": expect})
    if gate is not None:
        terms = {"metric": metric, "min_improvement": min_improvement}
        body["gate"] = {
            "evaluation_file": uploaded_id(client, gate, "fine-tune", terminal),
            **terms,
        }
    if expect is None and not _exists(client, name):
        # With a gate, the model has to be measured before it gets even a new alias.
        made = client.post(ALIASES, {"name": name, "model": None if gate else model})
        if gate is None:
            terminal.result(made, lambda: _told(made))
            return
    found = client.post(f"{ALIASES}/{name}", body, idempotency_key=str(uuid.uuid4()))
    if gate is not None and watch:
        _follow(client, found, terminal)
        return
    terminal.result(found, lambda: found["gate_job_id"] if gate else _told(found))


@models_app.command()
@for_tenant
def aliases(client: ApiClient, terminal: Terminal) -> None:
    """List aliases and who holds them."""
    found = client.list_all(ALIASES)
    rows = ((one["id"], one["model"], one["version"], when(one["moved_at"])) for one in found)
    terminal.result(found, lambda: table("alias", "model", "version", "moved", rows=rows))


@models_app.command()
@for_tenant
def history(
    client: ApiClient,
    terminal: Terminal,
    name: AliasName,
    limit: NewestOption = 20,
) -> None:
    """Show where an alias has been."""
    found = client.list_all(f"{ALIASES}/{name}/history", limit=limit)
    terminal.result(found, lambda: _moves(found))


@models_app.command()
@for_tenant
def rollback(
    client: ApiClient,
    terminal: Terminal,
    name: AliasName,
    expect: Annotated[
        str | None, typer.Option(help="Refuse unless this model holds the alias now.")
    ] = None,
) -> None:
    """Give an alias back to the model that held it before; again: to the one before that."""
    body = {} if expect is None else {"expected_model": expect}
    found = client.post(f"{ALIASES}/{name}/rollback", body)
    terminal.result(found, lambda: _told(found))


def _exists(client: ApiClient, name: str) -> bool:
    try:
        client.get(f"{ALIASES}/{name}")
    except CommandError as error:
        if error.code != "not_found":
            raise
        return False
    return True


def _follow(client: ApiClient, found: Json, terminal: Terminal) -> None:
    """Waits for the gate's evaluation. Raises CommandError when the alias stays where it is."""
    job_id, name = found["gate_job_id"], found["id"]
    job = watch_job(client, job_id, terminal)
    if job["state"] != "succeeded":
        reason = (job.get("error") or {}).get("message", "")
        raise CommandError(f"the evaluation {job_id} ended {job['state']}: {reason}")
    moves = client.list_all(f"{ALIASES}/{name}/history", limit=100)
    decided = [move for move in moves if move["job_id"] == job_id]
    terminal.result(decided, lambda: _moves(decided))
    if not any(move["outcome"] == "moved" for move in decided):
        raise CommandError(f"{name} was not moved")


def _moves(moves: list[Json]) -> RenderableType:
    rows = (
        (
            move["version"],
            when(move["created_at"]),
            move["by"],
            move["outcome"],
            move["from_model"],
            move["to_model"],
            _numbers(move["evaluation"]),
        )
        for move in moves
    )
    return table("version", "when", "by", "outcome", "from", "to", "measured", rows=rows)


def _numbers(evaluation: Json | None) -> str:
    if evaluation is None:
        return ""
    found = (evaluation["candidate_value"], evaluation["holder_value"])
    new, old = ("-" if value is None else f"{value:.4g}" for value in found)
    return f"{evaluation['metric']} {new} against {old}"


def _told(found: Json) -> str:
    return f"{found['id']} is {found['model']}, version {found['version']}"
