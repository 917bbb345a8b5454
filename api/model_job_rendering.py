"""From jobs about models to the objects that tenants see. Pure."""

from __future__ import annotations

from api import alias_rendering, rendering
from api.fine_tuning_rendering import error_of
from api.rendering import Object
from shared.db.job_rows import JobRow
from shared.db.model_jobs import ModelJob
from shared.specs.model_jobs import EvaluationSpec


def evaluation(row: JobRow, job: ModelJob) -> Object:
    spec = EvaluationSpec.model_validate(job.spec)
    shown: Object = {
        "id": row.id,
        "object": "evaluation",
        "created_at": rendering.created_at_of(row.id, row.created_at),
        "ended_at": rendering.seconds_of(row.ended_at),
        "status": row.state,
        "stopping": row.stop_reason is not None and not rendering.has_ended(row.state),
        "models": spec.models,
        "aliases": job.detail.get("aliases", {}),
        "gate": alias_rendering.gate(job.detail.get("gate")),
        "file": spec.file,
        "metric": spec.metric,
        "direction": "max" if spec.goes_up else "min",
        "max_examples": spec.max_examples,
        "progress": rendering.progress_of(row._replace(rows_failed=0)),
        "error": error_of(row),
        "result": job.result,
    }
    if row.queue_position is not None:
        shown["queue_position"] = row.queue_position
    return shown
