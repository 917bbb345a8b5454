"""Fine-tuning jobs for people: a line while they run, a table when they are looked at."""

from __future__ import annotations

import time

from rich.console import RenderableType

from pressrun.api_client import Json
from pressrun.sweep_views import ended_trials, is_sweep, sweep_fields
from pressrun.terminal import table, when
from pressrun.watching import Snapshot


def status_of(job: Json) -> str:
    """For people, who want to know that it is paused rather than queued."""
    asked = "paused" if job["paused"] else "stopping" if job["stopping"] else ""
    return f"{job['status']}, {asked}" if asked else str(job["status"])


def snapshot_of(job: Json) -> Snapshot:
    if is_sweep(job):
        return _of_sweep(job)
    finish = job["estimated_finish"]
    return Snapshot(
        str(job["status"]),
        job["step"] or 0,
        0,
        job["steps"] or 0,
        "steps",
        remark="" if job["loss"] is None else f"loss {job['loss']:.4g}",
        eta_seconds=None if finish is None else max(0.0, finish - time.time()),
    )


def _of_sweep(job: Json) -> Snapshot:
    sweep = job["sweep"]
    best = sweep["best"]
    return Snapshot(
        str(job["status"]),
        ended_trials(sweep),
        0,
        sweep["trials"],
        "trials",
        remark="" if best is None else f"best {sweep['metric']} {best['value']:.4g}",
    )


def describe(job: Json) -> RenderableType:
    """A job for people."""
    of_steps = f"{job['step'] or 0} of {job['steps']}" if job["steps"] else None
    fields = {
        "id": job["id"],
        "status": status_of(job),
        "model": job["model"],
        "method": job["recipe"],
        "steps": of_steps,
        "loss": job["loss"],
        "created": when(job["created_at"]),
        "done by": when(job["estimated_finish"]),
        "finished": when(job["finished_at"]),
        "made": job["fine_tuned_model"],
        "files": ", ".join(job["result_files"]),
        "error": (job["error"] or {}).get("message"),
    } | sweep_fields(job)
    return table("", "", rows=fields.items(), headed=False)
