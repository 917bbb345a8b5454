"""Sweeps for people: read from a file, shown as a table of trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pressrun.api_client import ApiClient, Json
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import table

JOBS = "/v1/fine_tuning/jobs"


def read_sweep(file: str | None, trials: int | None) -> Json | None:
    """What to search for, ``trials`` instead of the file's own. Raises CommandError (USAGE)."""
    if file is None:
        if trials is not None:
            raise CommandError("--trials goes with --sweep", ExitCode.USAGE)
        return None
    try:
        sweep = json.loads(Path(file).read_text())
    except OSError:
        raise CommandError(f"there is no file {file}", ExitCode.USAGE) from None
    except ValueError:
        raise CommandError(f"{file} is not JSON", ExitCode.USAGE) from None
    if not isinstance(sweep, dict):
        raise CommandError(f"{file} must hold an object: trials, space, …", ExitCode.USAGE)
    return sweep if trials is None else sweep | {"trials": trials}


def is_sweep(job: Json) -> bool:
    return "trials" in (job.get("sweep") or {})


def ended_trials(sweep: Json) -> int:
    return int(sweep["finished"] + sweep["pruned"] + sweep["failed"])


def sweep_fields(job: Json) -> dict[str, Any]:
    """What a job shows of the sweep that it is or belongs to."""
    sweep = job.get("sweep") or {}
    if not is_sweep(job):
        return {"trial": f"{sweep['number']} of {job['parent_id']}"} if sweep else {}
    told = ", ".join(f"{sweep[name]} {name}" for name in ("finished", "pruned", "failed"))
    best = sweep["best"]
    return {
        "trials": f"{ended_trials(sweep)} of {sweep['trials']} ({told})",
        "best": best and f"{sweep['metric']}={best['value']:.6g}, trial {best['number']}",
    }


def trials_of(client: ApiClient, job: Json) -> list[Json]:
    """The jobs of a sweep's trials, in their order."""
    if not is_sweep(job):
        return []
    found = client.list_all(JOBS, parent=job["id"], limit=job["sweep"]["trials"])
    return sorted(found, key=lambda trial: trial["sweep"]["number"])


def with_trials(shown: RenderableType, job: Json, trials: list[Json]) -> RenderableType:
    """``shown``, and the trials below it."""
    if not trials:
        return shown
    best = (job["sweep"]["best"] or {}).get("job")
    names = sorted({name for trial in trials for name in trial["sweep"]["params"]})
    rows = [
        (
            trial["sweep"]["number"],
            _outcome(trial) + (", best" if trial["id"] == best else ""),
            _short(trial["sweep"]["value"]),
            *(_short(trial["sweep"]["params"].get(name)) for name in names),
            trial["id"],
        )
        for trial in trials
    ]
    titles = ("trial", "status", job["sweep"]["metric"], *names, "job")
    return Group(shown, Text(""), table(*titles, rows=rows))


def _outcome(trial: Json) -> str:
    return "pruned" if trial["sweep"]["pruned"] else str(trial["status"])


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
