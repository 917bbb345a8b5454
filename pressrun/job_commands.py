"""``pressrun job …``: one generation at a time."""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import RenderableType

from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.endings import not_succeeded
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.job_watching import watch_job
from pressrun.options import NewestOption, parse_metadata
from pressrun.terminal import Terminal, table, when

JOBS = "/v1/jobs"

app = typer.Typer(no_args_is_help=True, help="Submit and follow single jobs.")

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, job_… or your own.")]
_AGE = re.compile(r"([1-9][0-9]{0,7})([smh])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3_600}


@app.command()
@for_tenant
def submit(
    client: ApiClient,
    terminal: Terminal,
    *,
    endpoint: Annotated[str, typer.Option(help="Such as /v1/chat/completions.")],
    body: Annotated[
        str, typer.Option(help="The endpoint's JSON body; @FILE reads a file, - reads stdin.")
    ],
    metadata: Annotated[list[str] | None, typer.Option(help="key=value; repeatable.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=0, max=9, help="Lower runs first; default: the server's.")
    ] = None,
    own_id: Annotated[
        str | None,
        typer.Option("--id", help="An id of your own: submitting it again changes nothing."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Give up after so long: 90s, 5m, 2h.", metavar="AGE")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check it, and say what it would take.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the result.")] = False,
) -> None:
    """Submit one job."""
    request: Json = {"endpoint": endpoint, "body": read_body(body)}
    if metadata:
        request["metadata"] = parse_metadata(metadata)
    if priority is not None:
        request["priority"] = priority
    if expires is not None:
        request["expires_in_seconds"] = seconds_of(expires)
    if dry_run:
        told = client.post(JOBS, request | {"dry_run": True})
        terminal.result(told, lambda: json.dumps(told, indent=2))
        return
    if own_id is None:
        job = client.post(JOBS, request, idempotency_key=str(uuid.uuid4()))
    else:
        job = client.put(f"{JOBS}/{quote(own_id, safe='')}", request)
    if watch:
        _follow(client, job["id"], terminal)
    else:
        terminal.result(job, lambda: job["id"])


@app.command()
@for_tenant
def watch(client: ApiClient, terminal: Terminal, job_id: JobId) -> None:
    """Wait for a job's end and show its result. Ctrl-C stops the watching, not the job."""
    _follow(client, job_id, terminal)


@app.command()
@for_tenant
def cancel(client: ApiClient, terminal: Terminal, job_id: JobId) -> None:
    """Stop a job."""
    job = client.post(f"{JOBS}/{job_id}/cancel")
    terminal.result(job, lambda: f"{job['id']}: {job['state']}")


@app.command(name="list")
@for_tenant
def list_command(
    client: ApiClient,
    terminal: Terminal,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: NewestOption = 20,
) -> None:
    """List jobs, newest first; batches are among them."""
    jobs = client.list_all(JOBS, limit=limit, state=state)
    terminal.result(jobs, lambda: _listing(jobs))


def read_body(source: str) -> Any:
    """Decodes ``JSON``, ``@FILE`` or ``-``. Raises CommandError (USAGE)."""
    try:
        if source == "-":
            text = sys.stdin.read()
        elif source.startswith("@"):
            text = Path(source[1:]).read_text()
        else:
            text = source
        return json.loads(text)
    except OSError as error:
        raise CommandError(f"cannot read {source[1:]}: {error.strerror}", ExitCode.USAGE) from None
    except ValueError as error:
        raise CommandError(f"--body is not JSON: {error}", ExitCode.USAGE) from None


def seconds_of(age: str) -> int:
    """Decodes ``90s``, ``5m`` or ``2h``. Raises CommandError (USAGE)."""
    match = _AGE.fullmatch(age)
    if match is None:
        raise CommandError(f"--expires takes 90s, 5m or 2h, not {age!r}", ExitCode.USAGE)
    return int(match[1]) * _UNITS[match[2]]


def generated_text(result: Any) -> str | None:
    """What a chat completion or completion says; None for other results."""
    try:
        choices = result["choices"]
        texts = [c["message"]["content"] if "message" in c else c["text"] for c in choices]
    except (KeyError, TypeError):
        return None
    return "\n---\n".join(map(str, texts))


def _follow(client: ApiClient, job_id: str, terminal: Terminal) -> None:
    job = watch_job(client, job_id, terminal)
    if job["state"] == "succeeded" or terminal.json_only:
        terminal.result(job, lambda: _result(job))
    if job["state"] != "succeeded":
        raise not_succeeded(job_id, job["state"], job.get("error"))


def _result(job: Json) -> RenderableType:
    result = job.get("result")
    text = generated_text(result)
    return json.dumps(result, indent=2, ensure_ascii=False) if text is None else text


def _listing(jobs: list[Json]) -> RenderableType:
    return table(
        "id",
        "kind",
        "state",
        "model",
        "created",
        rows=((j["id"], j["kind"], j["state"], j["model"], when(j["created_at"])) for j in jobs),
    )
