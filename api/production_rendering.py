"""From productions to the objects that tenants see. Pure."""

from __future__ import annotations

from api import rendering
from api.fine_tuning_rendering import error_of
from api.rendering import Object
from shared.db.job_rows import JobRow
from shared.db.productions import ProductionLook
from shared.specs.productions import ENDPOINT, progress_at
from shared.states import JobState


def production(row: JobRow, found: ProductionLook) -> Object:
    spec = found.spec
    shown: Object = {
        "id": row.id,
        "object": "production",
        "created_at": rendering.created_at_of(row.id, row.created_at),
        "started_at": rendering.seconds_of(row.started_at),
        "ended_at": rendering.seconds_of(row.ended_at),
        "expires_at": rendering.expires_at_of(row.id, row.created_at, row.expires_at),
        "status": row.state,
        "stopping": row.stop_reason is not None and not rendering.has_ended(row.state),
        "version": row.version,
        "models": [spec["named"].get(name, name) for name in spec["models"]],
        "aliases": found.aliases,
        "data_file_id": row.input_file_id,
        "output_format": spec["output_format"],
        "metadata": row.metadata,
        "priority": spec["priority"],
        "dry_run": spec["dry_run"],
        "rows": found.rows,
        "lines": found.lines,
        "kept": row.rows_completed,
        "round": found.round,
        "phase": found.phase,
        "phases": found.phases,
        "batch": _batch(found),
        "progress": _progress(row, found),
        "usage": rendering.usage_of(row),
        "error": error_of(row),
        "output_file_id": row.output_file_id,
        "output_url": f"{ENDPOINT}/{row.id}/output" if row.output_file_id else None,
        "summary": None if spec["dry_run"] else found.result,
        "estimate": (found.result or {}).get("estimate") if spec["dry_run"] else None,
    }
    if row.queue_position is not None:
        shown["queue_position"] = row.queue_position
    return shown


def _batch(found: ProductionLook) -> Object | None:
    if found.batch_id is None:
        return None
    done = min(found.batch_done, found.batch_rows)
    return {"id": found.batch_id, "rows": found.batch_rows, "done": done}


def _progress(row: JobRow, found: ProductionLook) -> float:
    """Each round is most of what was left, since it makes most of what it is asked good."""
    if rendering.has_ended(row.state):
        return 1.0 if row.state == JobState.SUCCEEDED else round(row.progress or 0.0, 4)
    if found.batch_id is None or not found.batch_rows:
        return round(row.progress or 0.0, 4)
    share = (found.phase + min(1.0, found.batch_done / found.batch_rows)) / found.phases
    return round(progress_at(found.round, share), 4)
