"""From jobs of kind batch to OpenAI's batches. Pure."""

from __future__ import annotations

from api import rendering
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
    """An OpenAI batch."""
    status = _batch_status(row)
    ended = rendering.seconds_of(row.ended_at)
    cancelled = row.stop_reason == StopReason.CANCELLED
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": row.endpoint,
        "errors": _batch_errors(row),
        "input_file_id": row.input_file_id,
        "models": row.models or {},
        "completion_window": (row.batch_spec or {}).get("completion_window", ""),
        "status": status,
        "output_file_id": row.output_file_id,
        "error_file_id": row.error_file_id,
        "created_at": rendering.created_at_of(row.id, row.created_at),
        "in_progress_at": rendering.seconds_of(row.in_progress_at),
        "expires_at": rendering.expires_at_of(row.id, row.created_at, row.expires_at),
        "finalizing_at": rendering.seconds_of(row.finalizing_at),
        "completed_at": ended if status == "completed" else None,
        "failed_at": ended if status == "failed" else None,
        "expired_at": ended if status == "expired" else None,
        "cancelling_at": rendering.seconds_of(row.cancel_requested_at) if cancelled else None,
        "cancelled_at": ended if status == "cancelled" else None,
        "request_counts": {
            "total": row.rows_total,
            "completed": row.rows_completed,
            "failed": row.rows_failed,
        },
        "usage": _batch_usage(row),
        "metadata": row.metadata,
    }


def _batch_status(row: JobRow) -> str:
    if rendering.has_ended(row.state):
        return _BATCH_STATUS[JobState(row.state)]
    if row.stop_reason == StopReason.CANCELLED:
        return "cancelling"
    return _STAGE_STATUS[Stage(row.stage)]


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
    if not rendering.has_ended(row.state) or row.state == JobState.FAILED:
        return None
    return {
        **rendering.usage_of(row),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
