"""From rows to the objects that tenants see. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from api.limits import MAX_RETRY_AFTER_SECONDS
from shared.db.api_keys import KeyRow
from shared.db.events import EventRow
from shared.db.files import FileRow
from shared.db.jobs import JobRow
from shared.db.models import Model
from shared.db.tenants import TenantRow
from shared.ids import ALPHABET, LENGTH
from shared.states import JobState, Stage, is_terminal

Object = dict[str, Any]

_DIGITS = {letter: digit for digit, letter in enumerate(ALPHABET)}
_TERMINAL = {str(state) for state in JobState if is_terminal(state)}
_TIME_CHARACTERS = 10
_QUEUED_SHARDS_A_SECOND = 10
_LONG_RETRY_SECONDS = 5
_TEXT_ENDPOINTS = {
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/classifications",
}


def has_ended(state: str) -> bool:
    return state in _TERMINAL


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def etag(body: str) -> str:
    """A weak entity tag of a rendered body."""
    return f'W/"{blake2b(body.encode(), digest_size=12).hexdigest()}"'


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


def accepted_seconds(item_id: str) -> int | None:
    """When an id of ours was made, in Unix seconds.

    The answer to a submit can tell this without asking the database for its row's time, every
    later answer tells the same, and lists are in its order.
    """
    body = item_id[-LENGTH:]
    if len(item_id) <= LENGTH or not set(body) <= _DIGITS.keys() or body[0] > "7":
        return None
    number = 0
    for letter in body[:_TIME_CHARACTERS]:
        number = number * 32 + _DIGITS[letter]
    return number // 1000


def created_at_of(item_id: str, stored: float) -> int:
    accepted = accepted_seconds(item_id)
    return int(stored) if accepted is None else accepted


def expires_at_of(item_id: str, stored: float, expires: float | None) -> int | None:
    """The whole life after the moment shown, whatever the clocks of database and API say."""
    return None if expires is None else created_at_of(item_id, stored) + round(expires - stored)


def seconds_of(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(0.0, end - start), 3)


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
        created_at=accepted,
        expires_at=None if expires_in_seconds is None else accepted + expires_in_seconds,
    )


def job(row: JobRow) -> Object:
    """A job without its result."""
    shown: Object = {
        "id": row.id,
        "object": "job",
        "kind": row.kind,
        "state": row.state,
        "stopping": row.stop_reason is not None and row.state not in _TERMINAL,
        "endpoint": row.endpoint,
        "model": row.model,
        "metadata": row.metadata,
        "progress": progress_of(row),
        "error": _job_error(row),
        "artifacts": _artifacts(row),
        "usage": usage_of(row),
        "created_at": created_at_of(row.id, row.created_at),
        "started_at": seconds_of(row.started_at),
        "ended_at": seconds_of(row.ended_at),
        "expires_at": expires_at_of(row.id, row.created_at, row.expires_at),
        "timings": {
            "queued_seconds": _between(row.created_at, row.started_at),
            "running_seconds": _between(row.started_at, row.ended_at),
        },
    }
    if makes_artifacts(row.endpoint):
        shown["artifacts_url"] = f"/v1/jobs/{row.id}/artifacts"
    if row.stage == Stage.STEP:
        shown["steps_url"] = f"/v1/jobs/{row.id}/steps"
    if row.queue_position is not None:
        shown["queue_position"] = row.queue_position
    return shown


def makes_artifacts(endpoint: str) -> bool:
    """Whether what this endpoint makes is stored as files."""
    return endpoint not in _TEXT_ENDPOINTS


def job_with_result(row: JobRow, result: str | None) -> str:
    """The body of a job. ``result`` is JSON already: it is not decoded to be encoded again."""
    return f'{compact(job(row))[:-1]},"result":{result or "null"}}}'


def retry_after(row: JobRow) -> int:
    """Seconds after which asking again may be worth it: soon for what runs, later the longer the
    line. Nobody knows how fast the line moves; ten shards a second is taken."""
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


def _job_error(row: JobRow) -> Object | None:
    if row.error_code is None:
        return None
    return {
        "code": row.error_code,
        "message": row.error_message or "",
        "param": row.error_param,
    }


def _artifacts(row: JobRow) -> list[Object]:
    found = (("output", row.output_file_id), ("errors", row.error_file_id))
    return [
        {"name": name, "file_id": file_id, "content_url": f"/v1/files/{file_id}/content"}
        for name, file_id in found
        if file_id is not None
    ]


def usage_of(row: JobRow) -> Object:
    return {
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "total_tokens": row.input_tokens + row.output_tokens,
    }


def event(row: EventRow) -> Object:
    return {
        "id": str(row.id),
        "object": "job.event",
        "type": row.type,
        "created_at": int(row.created_at),
        "data": row.data,
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
