"""From jobs of kind batch to OpenAI's batches. Pure."""

from __future__ import annotations

from api import rendering
from api.limits import DEFAULT_PRIORITY
from api.rendering import Object
from shared.db.jobs import JobRow
from shared.states import JobState, Stage, StopReason

_BATCH_STATUS = {
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "expired",
}
_STAGE_STATUS = {
    Stage.VALIDATE: "validating",
    Stage.GENERATE: "in_progress",
    Stage.ASSEMBLE: "finalizing",
}


def batch(row: JobRow) -> Object:
    """An OpenAI batch, and beside OpenAI's members ours."""
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": row.endpoint,
        "model": row.model,
        "errors": _batch_errors(row),
        "input_file_id": row.input_file_id,
        "completion_window": (row.batch_spec or {}).get("completion_window", ""),
        "status": batch_status(row),
        "output_file_id": row.output_file_id,
        "error_file_id": row.error_file_id,
        **_moments(row),
        "request_counts": {
            "total": row.rows_total,
            "completed": row.rows_completed,
            "failed": row.rows_failed,
        },
        "usage": _batch_usage(row),
        "metadata": row.metadata,
        **_ours(row),
    }


def batch_status(row: JobRow) -> str:
    """OpenAI's word for where the batch is."""
    if rendering.has_ended(row.state):
        return _BATCH_STATUS[JobState(row.state)]
    if row.stop_reason == StopReason.CANCELLED:
        return "cancelling"
    return _STAGE_STATUS[Stage(row.stage)]


def _moments(row: JobRow) -> Object:
    status, ended = batch_status(row), rendering.seconds_of(row.ended_at)
    cancelled = row.stop_reason == StopReason.CANCELLED
    return {
        "created_at": rendering.created_at_of(row.id, row.created_at),
        "in_progress_at": rendering.seconds_of(row.in_progress_at),
        "expires_at": rendering.expires_at_of(row.id, row.created_at, row.expires_at),
        "finalizing_at": rendering.seconds_of(row.finalizing_at),
        "completed_at": ended if status == "completed" else None,
        "failed_at": ended if status == "failed" else None,
        "expired_at": ended if status == "expired" else None,
        "cancelling_at": rendering.seconds_of(row.cancel_requested_at) if cancelled else None,
        "cancelled_at": ended if status == "cancelled" else None,
    }


def _batch_errors(row: JobRow) -> Object | None:
    if row.state != JobState.FAILED:
        return None
    listed = row.errors or [{"code": row.error_code, "message": row.error_message}]
    data = [
        {
            "code": item.get("code") or "internal_error",
            "message": item.get("message") or "",
            "param": item.get("param"),
            "line": item.get("line"),
        }
        for item in listed
    ]
    return {"object": "list", "data": data}


def _batch_usage(row: JobRow) -> Object | None:
    """Of the slices that have ended; a rejected batch used nothing."""
    if row.state == JobState.FAILED:
        return None
    return {
        **rendering.usage_of(row),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


def _ours(row: JobRow) -> Object:
    spec, detail = row.batch_spec or {}, row.batch_detail or {}
    return {
        "models": row.models or {},
        "priority": spec.get("priority", DEFAULT_PRIORITY),
        "succeeded": row.rows_completed,
        "commonest_error": _commonest_error(row.error_counts, detail.get("commonest_message")),
        "retry_of": (spec.get("retry") or {}).get("of"),
        "dry_run": bool(spec.get("dry_run")),
        "estimate": detail.get("estimate"),
    }


def _commonest_error(counts: dict[str, int] | None, message: str | None) -> Object | None:
    if not counts:
        return None
    code = max(counts, key=lambda code: (counts[code], code))
    return {"code": code, "count": counts[code], "message": message}
