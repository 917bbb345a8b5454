"""Others that hear the numbers: Weights & Biases and MLflow, where the worker has them installed.

TensorBoard's files are made at the end, from all numbers: ``event_files``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from worker.recipes.context import Context


def start_trackers(context: Context) -> ExitStack:
    """In the first process; in others there is nothing to hear. Leaving the stack ends them."""
    trackers = ExitStack()
    for wanted in context.plan.trackers if context.main else ():
        start = _OTHERS.get(str(wanted.get("type")))
        if start is not None:
            _try(start, context, trackers, wanted)
    return trackers


def _start_wandb(context: Context, trackers: ExitStack, wanted: Mapping[str, Any]) -> None:
    wandb = import_module("wandb")

    given = wanted.get("wandb") or {}
    run = wandb.init(
        project=given.get("project", "pressrun"),
        name=given.get("name"),
        entity=given.get("entity"),
        tags=given.get("tags") or [],
        config=context.hyperparameters.shown(),
        dir=str(context.folder),
    )
    context.reporter.add_tracker(lambda step, values: run.log(dict(values), step=step))
    trackers.callback(run.finish)


def _start_mlflow(context: Context, trackers: ExitStack, wanted: Mapping[str, Any]) -> None:
    mlflow = import_module("mlflow")

    mlflow.start_run(run_name=context.plan.model)
    mlflow.log_params(context.hyperparameters.shown())
    context.reporter.add_tracker(lambda step, values: mlflow.log_metrics(dict(values), step=step))
    trackers.callback(mlflow.end_run)


_Start = Callable[[Context, ExitStack, Mapping[str, Any]], None]
_OTHERS: dict[str, _Start] = {"wandb": _start_wandb, "mlflow": _start_mlflow}


def _try(start: _Start, context: Context, trackers: ExitStack, wanted: Mapping[str, Any]) -> None:
    """A tracker that is missing or refuses is no reason not to train."""
    name = str(wanted.get("type"))
    if importlib.util.find_spec(name) is None:
        context.note(f"{name} is not installed on the worker: it hears nothing", "warn")
        return
    try:
        start(context, trackers, wanted)
    except Exception as error:
        context.note(f"{name} did not start: {type(error).__name__}", "warn")
