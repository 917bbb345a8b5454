"""From rows to the objects that tenants see. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from api.limits import MAX_RETRY_AFTER_SECONDS
from shared.db.api_keys import KeyRow
from shared.db.files import FileRow
from shared.db.job_rows import JobRow, Standing
from shared.db.models import Model
from shared.db.tenants import TenantRow
from shared.ids import accepted_seconds
from shared.states import JobState, Stage, is_terminal

Object = dict[str, Any]

_TERMINAL = {str(state) for state in JobState if is_terminal(state)}
_QUEUED_SHARDS_A_SECOND = 10
_LONG_RETRY_SECONDS = 5
_TEXT_ENDPOINTS = {
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/classifications",
    "/v1/responses",
    "/v1/moderations",
}


def has_ended(state: str) -> bool:
    return state in _TERMINAL


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def page(items: Sequence[Object], limit: int) -> Object:
    """A list envelope of up to ``limit`` of ``items``, one more of which means there are more."""
    data = list(items[:limit])
    return {
        "object": "list",
        "data": data,
        "has_more": len(items) > limit,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def created_at_of(item_id: str, stored: float) -> int:
    accepted = accepted_seconds(item_id)
    return int(stored) if accepted is None else accepted


def expires_at_of(item_id: str, stored: float, expires: float | None) -> int | None:
    """The whole life after the moment shown, whatever the clocks of database and API say."""
    return None if expires is None else created_at_of(item_id, stored) + round(expires - stored)


def seconds_of(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


_FRESH_JOB = JobRow(
    id="",
    kind="generate",
    state=JobState.QUEUED,
    stage=Stage.GENERATE,
    stop_reason=None,
    endpoint="",
    model=None,
    batch_spec=None,
    metadata=None,
    input_file_id=None,
    output_file_id=None,
    error_file_id=None,
    error_code=None,
    error_message=None,
    error_param=None,
    errors=None,
    rows_total=1,
    rows_completed=0,
    rows_failed=0,
    input_tokens=0,
    output_tokens=0,
    progress=None,
    created_at=0.0,
    started_at=None,
    in_progress_at=None,
    finalizing_at=None,
    cancel_requested_at=None,
    ended_at=None,
    expires_at=None,
    queue_position=None,
    client_id=None,
    version=1,
    alias=None,
    models=None,
)


def new_job(
    job_id: str,
    *,
    kind: str = "generate",
    endpoint: str,
    model: str,
    metadata: dict[str, str] | None,
    expires_in_seconds: float | None,
    steps: int = 0,
    client_id: str | None = None,
    alias: str | None = None,
    models: dict[str, str] | None = None,
) -> JobRow:
    """A job that was accepted this moment: of one row, or of so many ``steps``."""
    accepted = accepted_seconds(job_id) or 0
    return _FRESH_JOB._replace(
        id=job_id,
        kind=kind,
        stage=Stage.STEP if steps else Stage.GENERATE,
        endpoint=endpoint,
        model=model,
        metadata=metadata,
        rows_total=steps or 1,
        client_id=client_id,
        alias=alias,
        models=models,
        created_at=accepted,
        expires_at=None if expires_in_seconds is None else accepted + expires_in_seconds,
    )


def makes_artifacts(endpoint: str) -> bool:
    """Whether what this endpoint makes is stored as files."""
    return endpoint not in _TEXT_ENDPOINTS


def retry_after(row: JobRow | Standing, eta_seconds: float | None = None) -> int:
    """Seconds after which asking again may be worth it: half of what it should still take, where
    that is known. Else soon for what runs, later the longer the line, of which ten shards a second
    are taken to move on."""
    if eta_seconds is not None:
        return max(1, min(MAX_RETRY_AFTER_SECONDS, round(eta_seconds / 2)))
    if row.state == JobState.RUNNING:
        return _LONG_RETRY_SECONDS if row.kind in {"batch", "campaign"} else 1
    ahead = row.queue_position or 0
    return min(MAX_RETRY_AFTER_SECONDS, 1 + ahead // _QUEUED_SHARDS_A_SECOND)


def progress_of(row: JobRow) -> float:
    """0 to 1, of rows or steps that have ended and of those that run."""
    if row.state == JobState.SUCCEEDED:
        return 1.0
    if not row.rows_total:
        return 0.0
    done = row.rows_completed + row.rows_failed + (row.progress or 0.0)
    return round(min(1.0, done / row.rows_total), 4)


def usage_of(row: JobRow) -> Object:
    return {
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "total_tokens": row.input_tokens + row.output_tokens,
    }


def file(row: FileRow) -> Object:
    """An OpenAI file. Its status is at once ``processed``: clients wait for that."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": created_at_of(row.id, row.created_at),
        "expires_at": expires_at_of(row.id, row.created_at, row.expires_at),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
    }


def model(entry: Model) -> Object:
    return {
        "id": entry.id,
        "object": "model",
        "created": entry.created,
        "owned_by": entry.owned_by,
        "endpoints": entry.endpoints,
    }


def tenant(row: TenantRow) -> Object:
    return {
        "id": row.id,
        "object": "tenant",
        "name": row.name,
        "created_at": int(row.created_at),
        "disabled": row.disabled,
        "weight": row.weight,
        "limits": row.limits._asdict(),
    }


def key(row: KeyRow) -> Object:
    return {
        "id": row.id,
        "object": "api_key",
        "name": row.name,
        "prefix": row.prefix,
        "created_at": int(row.created_at),
        "expires_at": seconds_of(row.expires_at),
        "revoked_at": seconds_of(row.revoked_at),
    }
