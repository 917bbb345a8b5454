"""From jobs of kind fine_tune to OpenAI's fine-tuning jobs, events and checkpoints. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from api import rendering
from api.rendering import Object
from shared.db.checkpoints import CheckpointRow
from shared.db.events import EventRow
from shared.db.jobs import JobRow
from shared.db.models import Model
from shared.db.sweeps import SweepSummary
from shared.db.tuning import MetricsRow, Tuning
from shared.specs.fine_tuning import FineTuningSpec
from shared.states import JobState, Stage

EVENT_PREFIX = "ft-event-"

_STATUS = {
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "cancelled",  # these jobs have no deadline
}
_OF_OPENAI = ("n_epochs", "batch_size", "learning_rate_multiplier")
_LOSS = "train_loss"
_TOLD_ELSEWHERE = {"hyperparameters", "eta_seconds"}


def job(row: JobRow, tuning: Tuning, tenant_id: str) -> Object:
    """An OpenAI fine-tuning job."""
    spec = FineTuningSpec.model_validate(tuning.spec)
    training, result = tuning.detail.get("training", {}), tuning.result or {}
    ended = rendering.has_ended(row.state)
    shown: Object = {
        "id": row.id,
        "object": "fine_tuning.job",
        "created_at": rendering.created_at_of(row.id, row.created_at),
        "finished_at": rendering.seconds_of(row.ended_at),
        "estimated_finish": None if ended else _estimated_finish(row, tuning),
        "model": spec.model,
        "alias": tuning.detail.get("alias"),
        "fine_tuned_model": result.get("fine_tuned_model"),
        "organization_id": tenant_id,
        "status": status_of(row),
        "training_file": spec.training_file,
        "validation_file": spec.validation_file,
        "result_files": result.get("result_files", _card(tuning)),
        "trained_tokens": result.get("trained_tokens"),
        "error": error_of(row),
        "seed": spec.seed or 0,
        "metadata": row.metadata,
        "suffix": spec.suffix,
        "recipe": spec.recipe,
        "parent_id": tuning.trial and tuning.trial.parent_id,
        "sweep": _sweep(spec, tuning),
        "integrations": _integrations(spec),
        "paused": tuning.paused_at is not None and not ended,
        "stopping": row.stop_reason is not None and not ended,
        "dry_run": spec.dry_run,
    }
    if row.queue_position is not None:
        shown["queue_position"] = row.queue_position
    return shown | _how(spec, training) | _how_far(row, tuning)


def status_of(row: JobRow) -> str:
    if rendering.has_ended(row.state):
        return _STATUS[JobState(row.state)]
    return "validating_files" if row.stage == Stage.VALIDATE else row.state


def _sweep(spec: FineTuningSpec, tuning: Tuning) -> Object | None:
    trial, sweep = tuning.trial, spec.sweep
    if trial is not None:
        return {
            "number": trial.number,
            "params": trial.params,
            "value": trial.value,
            "pruned": trial.pruned,
        }
    if sweep is None:
        return None
    so_far = tuning.sweep or SweepSummary()
    return sweep.model_dump(mode="json", exclude_none=True) | {
        "finished": so_far.finished,
        "pruned": so_far.pruned,
        "failed": so_far.failed,
        "running": so_far.open,
        "best": so_far.best,
    }


def _how(spec: FineTuningSpec, training: Object) -> Object:
    """Hyperparameters as decided, or as asked for while nothing is decided."""
    options = spec.options
    asked = options.hyperparameters.model_dump(mode="json", exclude_unset=True)
    chosen = dict.fromkeys(_OF_OPENAI, "auto") | asked | training.get("hyperparameters", {})
    member = {
        "hyperparameters": chosen,
        "adapter": options.adapter,
        "lora": options.lora.model_dump(mode="json"),
    }
    return {"hyperparameters": chosen, "method": {"type": spec.recipe, spec.recipe: member}}


def _how_far(row: JobRow, tuning: Tuning) -> Object:
    data = tuning.detail.get("data", {})
    training = tuning.detail.get("training", {})
    told = {name: value for name, value in training.items() if name not in _TOLD_ELSEWHERE}
    if tuning.sweep is not None:
        row = row._replace(progress=tuning.sweep.progress)
    return {
        "progress": rendering.progress_of(row._replace(rows_failed=0)),
        "step": training.get("step"),
        "steps": training.get("steps"),
        "loss": _newest(tuning, _LOSS),
        "lineage": tuning.detail.get("lineage", []),
        "data": {name: value for name, value in data.items() if name != "estimate"} or None,
        "estimate": data.get("estimate"),
        "training": told or None,
        "metrics": (tuning.result or {}).get("metrics"),
    }


def _newest(tuning: Tuning, name: str) -> float | None:
    return next((step.values[name] for step in tuning.recent if name in step.values), None)


def _estimated_finish(row: JobRow, tuning: Tuning) -> int | None:
    """From the speed that the training has measured; without one nobody can tell."""
    if row.state != JobState.RUNNING or row.stop_reason or tuning.paused_at is not None:
        return None
    for step in tuning.recent:
        seconds = step.values.get("eta_seconds")
        if seconds is not None:
            return int(step.created_at + seconds)
    return None


def _card(tuning: Tuning) -> list[str]:
    card = tuning.detail.get("card_file_id")
    return [] if card is None else [card]


def error_of(row: JobRow) -> Object | None:
    """Of a job that failed; with the lines of its file that were refused, if they were."""
    if row.error_code is None or row.state != JobState.FAILED:
        return None
    error = {
        "code": row.error_code,
        "message": row.error_message or "",
        "param": row.error_param,
    }
    if row.errors is None:
        return error
    members = ("code", "message", "param", "line")
    return error | {"lines": [{name: line.get(name) for name in members} for line in row.errors]}


def _integrations(spec: FineTuningSpec) -> list[Object] | None:
    """Those that OpenAI's clients know."""
    shown = [item.model_dump(mode="json") for item in spec.integrations if item.wandb is not None]
    return shown or None


# --- events -------------------------------------------------------------------------------------


def event(row: EventRow) -> Object:
    kind = row.type.partition(".")[2]
    return {
        "id": f"{EVENT_PREFIX}{row.id}",
        "object": "fine_tuning.job.event",
        "created_at": int(row.created_at),
        "level": _level(kind, row.data),
        "message": _message(kind, row.data),
        "type": "metrics" if kind == "metrics" else "message",
        "data": _numbers(row.data) if kind == "metrics" else row.data,
    }


def _level(kind: str, data: Object) -> str:
    level = data.get("level")
    if level in ("info", "warn", "error"):
        return str(level)
    return "error" if kind == "failed" else "info"


_TOLD = {
    "created": "Fine-tuning of {model} was accepted; its files are validated",
    "validated": "The files are valid; the training waits for a worker",
    "checkpoint": "Checkpoint at step {step}: {model}",
    "note": "{message}",
    "paused": "The job is paused",
    "resumed": "The job goes on",
    "cancelled": "The job was cancelled",
}


def _message(kind: str, data: Object) -> str:
    if kind == "metrics":
        return _step(data)
    if kind == "created" and "parent" in data:
        return f"Trial {data.get('number')} of {data['parent']} waits for a worker"
    if kind == "started":
        return _started(data.get("step") or 0, data.get("steps"))
    if kind == "failed":
        return f"The job failed: {data.get('message') or 'see its error'}"
    if kind == "succeeded":
        model = data.get("fine_tuned_model")
        return f"New fine-tuned model: {model}" if model else "The dry run has ended"
    return _TOLD.get(kind, kind.replace("_", " ")).format_map(defaultdict(str, data))


def _started(step: int, steps: int | None) -> str:
    begun = f"The training goes on after step {step}" if step else "The training has begun"
    return f"{begun}, of {steps} steps" if steps else begun


def _step(data: Object) -> str:
    of = f"/{data['steps']}" if data.get("steps") else ""
    shown = [
        f"{name.replace('_', ' ')}={value:.4g}"
        for name, value in data.get("values", {}).items()
        if name.endswith("_loss") and value is not None
    ]
    return ", ".join([f"Step {data.get('step')}{of}", *shown])


def _numbers(data: Object) -> Object:
    return {"step": data.get("step"), **data.get("values", {})}


# --- checkpoints, numbers, models ---------------------------------------------------------------


def checkpoint(row: CheckpointRow) -> Object:
    return {
        "id": row.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": rendering.created_at_of(row.id, row.created_at),
        "fine_tuned_model_checkpoint": row.model_id,
        "fine_tuning_job_id": row.job_id,
        "step_number": row.step,
        "metrics": {"step": float(row.step), **row.metrics},
        "best": row.best,
        "bytes": row.bytes,
    }


def metrics(row: MetricsRow) -> Object:
    return {
        "id": str(row.step),
        "object": "fine_tuning.job.metrics",
        "step": row.step,
        "epoch": row.epoch,
        "values": row.values,
        "created_at": int(row.created_at),
    }


def model(entry: Model) -> Object:
    """A model; of one that a training made, where it comes from."""
    shown = rendering.model(entry)
    return shown if entry.job_id is None else shown | {"pressrun": _origin(entry)}


def _origin(entry: Model) -> Object:
    detail: dict[str, Any] = entry.detail
    return {
        "base_model": entry.base_model,
        "adapter": entry.adapter,
        "recipe": detail.get("recipe"),
        "parents": detail.get("parents", []),
        "hyperparameters": detail.get("hyperparameters", {}),
        "metrics": detail.get("metrics", {}),
        "step": detail.get("step"),
        "bytes": entry.bytes,
        "digest": detail.get("digest"),
        "job_id": entry.job_id,
        "created": entry.created,
    }
