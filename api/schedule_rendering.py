"""From schedules to the objects that tenants see. Pure."""

from __future__ import annotations

from typing import Any

from api.rendering import Object
from shared.db.schedules import RunRow, ScheduleRow


def schedule(row: ScheduleRow) -> Object:
    spec = row.spec
    return {
        "id": row.id,
        "object": "schedule",
        "created_at": int(row.created_at),
        "updated_at": int(row.updated_at),
        "name": row.name,
        "status": row.state,
        "paused_reason": row.paused_reason,
        "source": source(spec["source"]),
        "every": _every(spec.get("every_hours")),
        "at": spec["at"],
        "timezone": spec["timezone"],
        "next_run_at": int(row.next_run_at) if row.state == "active" else None,
        "run_asked": row.run_asked,
        "open_run_id": row.open_run_id,
        "failures": row.failures,
        "error": _error(row),
        "key": spec.get("key"),
        "max_rows": spec["max_rows"],
        "remember_days": spec["remember_days"],
        "model": spec.get("model"),
        "n": spec["n"],
        "output_format": spec["output_format"],
        "metadata": spec.get("metadata"),
        "priority": spec["priority"],
    }


def _error(row: ScheduleRow | RunRow) -> Object | None:
    if row.error_code is None:
        return None
    return {"code": row.error_code, "message": row.error_message or ""}


def _every(hours: int | None) -> str | Object:
    if hours is None:
        return "day"
    return "hour" if hours == 1 else {"hours": hours}


def source(stored: dict[str, Any]) -> Object:
    return {name: stored.get(name) for name in ("url", "folder", "format")}


def run(row: RunRow, schedule_id: str) -> Object:
    return {
        "id": row.id,
        "object": "schedule.run",
        "schedule_id": schedule_id,
        "created_at": int(row.created_at),
        "ended_at": None if row.ended_at is None else int(row.ended_at),
        "status": row.state,
        "manual": row.manual,
        "rows_found": row.rows_found,
        "rows_new": row.rows_new,
        "rows_left": row.rows_left,
        "rows_bad": row.rows_bad,
        "bad_rows": row.bad,
        "lines_kept": row.lines_kept,
        "lines_failed": row.lines_failed,
        "production_id": row.job_id,
        "error": _error(row),
    }
