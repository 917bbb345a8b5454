"""``pressrun models evaluate`` and ``models optimize``: what models are worth, and smaller ones."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.endings import not_succeeded
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.job_watching import watch_job
from pressrun.options import WatchOption
from pressrun.terminal import Terminal, table
from pressrun.transfers import uploaded_id

EVALUATIONS = "/v1/evaluations"
MIB = 2**20
METHODS = ("merge", "int8", "int4", "prune")

FileArgument = Annotated[
    str, typer.Argument(help="Examples: a file, or the id of an uploaded one.")
]


@for_tenant
def evaluate(
    client: ApiClient,
    terminal: Terminal,
    file: FileArgument,
    models: Annotated[list[str], typer.Argument(help="Up to 8 models or aliases.")],
    *,
    metric: Annotated[str, typer.Option(help="loss, rougeL, macro_f1, entity_f1, …")] = "loss",
    max_examples: Annotated[
        int | None, typer.Option("--max-examples", min=1, help="Only the first so many.")
    ] = None,
    watch: WatchOption = True,
) -> None:
    """Measure models on examples, side by side."""
    body: Json = {
        "models": models,
        "file": uploaded_id(client, file, "evals", terminal),
        "metric": metric,
    }
    if max_examples is not None:
        body["max_examples"] = max_examples
    made = client.post(EVALUATIONS, body, idempotency_key=str(uuid.uuid4()))
    if not watch:
        terminal.result(made, lambda: made["id"])
        return
    job = _ended(client, made["id"], terminal)
    terminal.result(job, lambda: _measured(job["result"]))


@for_tenant
def optimize(
    client: ApiClient,
    terminal: Terminal,
    model: Annotated[str, typer.Argument(help="The model, or an alias.")],
    method: Annotated[str, typer.Argument(help=f"One of {', '.join(METHODS)}.")],
    *,
    evaluation_file: Annotated[
        str | None,
        typer.Option(
            "--evaluation-file", help="Examples to compare by; what its own training held out."
        ),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What must not get worse.")] = None,
    max_drop: Annotated[float, typer.Option("--max-drop", min=0, help="By what part.")] = 0.02,
    amount: Annotated[float, typer.Option(min=0, max=1, help="Of prune: how much.")] = 0.3,
    structured: Annotated[
        bool, typer.Option("--structured", help="Of prune: cut channels, not single weights.")
    ] = False,
    suffix: Annotated[str | None, typer.Option(help="A part of the new model's name.")] = None,
    watch: WatchOption = True,
) -> None:
    """Make a smaller model of a model, and compare the two."""
    body: Json = {"method": _method(method, amount, structured=structured), "max_drop": max_drop}
    given = {"metric": metric, "suffix": suffix}
    body |= {name: value for name, value in given.items() if value is not None}
    if evaluation_file is not None:
        body["evaluation_file"] = uploaded_id(client, evaluation_file, "evals", terminal)
    made = client.post(f"/v1/models/{model}/optimize", body, idempotency_key=str(uuid.uuid4()))
    if not watch:
        terminal.result(made, lambda: made["id"])
        return
    job = _ended(client, made["id"], terminal)
    terminal.result(job, lambda: _compared(job["result"]))


def _method(name: str, amount: float, *, structured: bool) -> Json:
    """Raises CommandError (USAGE)."""
    if name not in METHODS:
        raise CommandError(f"the method is one of {', '.join(METHODS)}", ExitCode.USAGE)
    if name == "merge":
        return {"type": "merge"}
    if name == "prune":
        structure = "structured" if structured else "unstructured"
        return {"type": "prune", "amount": amount, "structure": structure}
    return {"type": "quantize", "scheme": name}


def _ended(client: ApiClient, job_id: str, terminal: Terminal) -> Json:
    """Follows a job; raises CommandError for any other end than success, the table shown."""
    terminal.note(f"submitted {job_id}")
    job = watch_job(client, job_id, terminal)
    if job["state"] == "succeeded":
        return job
    if (job["result"] or {}).get("costs"):
        terminal.result(job, lambda: _compared(job["result"]))
    raise not_succeeded(job_id, job["state"], job["error"])


def _measured(result: Json) -> RenderableType:
    names = list(result["models"][0]["values"])
    rows = (
        (item["model"], *(_number(item["values"].get(name)) for name in names))
        for item in result["models"]
    )
    title = f"best by {result['metric']}: {result['best']}"
    return Group(table("model", *names, rows=rows), title)


def _compared(result: Json) -> RenderableType:
    rows = [
        (name, *(_number(sides[which], mib=name.endswith("_bytes")) for which in sides))
        for name, sides in {**result["costs"], **result["quality"]}.items()
    ]
    made = result["model"] or "not offered: it is too much worse"
    return Group(table("", "before", "after", rows=rows), str(made))


def _number(value: float | None, *, mib: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value / MIB:,.1f} MiB" if mib else f"{value:,.4g}"
