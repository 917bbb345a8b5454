"""Jobs and their events as tenants see them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from api.estimates import Outlook
from api.rendering import (
    Object,
    compact,
    created_at_of,
    expires_at_of,
    has_ended,
    makes_artifacts,
    progress_of,
    seconds_of,
    usage_of,
)
from shared.db.events import EventRow
from shared.db.job_rows import MAX_POSITION, JobRow, Standing
from shared.states import Stage

_PLACE = ".q"


def job(row: JobRow, outlook: Outlook | None = None) -> Object:
    """A job without its result."""
    shown: Object = {
        "id": row.id,
        "object": "job",
        "client_id": row.client_id,
        "kind": row.kind,
        "state": row.state,
        "version": row.version,
        "stopping": row.stop_reason is not None and not has_ended(row.state),
        "endpoint": row.endpoint,
        "model": row.model,
        "alias": row.alias,
        "metadata": row.metadata,
        "progress": progress_of(row),
        "succeeded": row.rows_completed,
        "failed": row.rows_failed,
        "error": _error(row),
        "artifacts": _files(row),
        "usage": usage_of(row),
        "created_at": created_at_of(row.id, row.created_at),
        "started_at": seconds_of(row.started_at),
        "ended_at": seconds_of(row.ended_at),
        "expires_at": expires_at_of(row.id, row.created_at, row.expires_at),
        "timings": {
            "queued_seconds": _between(row.created_at, row.started_at),
            "running_seconds": _between(row.started_at, row.ended_at),
        },
        **_urls(row),
    }
    if row.queue_position is not None:
        shown["queue_position"] = row.queue_position
    if row.models:
        shown["models"] = row.models
    if row.error_counts:
        shown |= _errors(row, row.error_counts)
    return shown | (expected(row.now, outlook) if outlook else {})


def job_with_result(row: JobRow, result: str | None, outlook: Outlook | None = None) -> str:
    """The body of a job. ``result`` is JSON already: it is not decoded to be encoded again."""
    return f'{compact(job(row, outlook))[:-1]},"result":{result or "null"}}}'


def expected(now: float, outlook: Outlook) -> Object:
    """When it should start and how long it should take, as far as there is something to go by.
    ``now`` in Unix seconds."""
    shown: Object = {}
    if outlook.starts_in is not None:
        shown["estimated_start"] = math.ceil(now + outlook.starts_in)
    if outlook.ends_in is not None:
        shown["eta_seconds"] = math.ceil(outlook.ends_in)
    return shown


def etag(row: JobRow | Standing, life: str = "") -> str:
    """A weak entity tag: what a job has done so far. ``life`` is of the URLs in its result.

    A place in line is no change of a job: the tag ends with it only so that who asks with a tag can
    be told when to come back without a look at all who wait.
    """
    seen = (row.version, row.rows_completed, row.rows_failed, row.progress, life)
    place = row.queue_position
    return f'W/"{"-".join("" if part is None else str(part) for part in seen)}{_PLACE}{place or 0}"'


def place_in(tags: Iterable[str], tag: str) -> int | None:
    """The place in line that one of ``tags``, as an If-None-Match lists them, was told with; None
    when none of them is of the job as ``tag`` has it."""
    wanted = tag[3:-1].rpartition(_PLACE)[0]
    for known in tags:
        said, _, place = known.rpartition(_PLACE)
        if said == wanted and place.isascii() and place.isdigit():
            return min(int(place[:9]), MAX_POSITION)
    return None


def event(row: EventRow) -> Object:
    return {
        "id": str(row.id),
        "object": "job.event",
        "type": row.type,
        "created_at": int(row.created_at),
        "data": row.data,
    }


def _urls(row: JobRow) -> Object:
    path = f"/v1/jobs/{row.id}"
    urls: Object = {
        "status_url": path,
        "result_url": f"{path}/result",
        "cancel_url": f"{path}/cancel",
        "events_url": f"{path}/events",
    }
    if makes_artifacts(row.endpoint):
        urls["artifacts_url"] = f"{path}/artifacts"
    if row.stage == Stage.STEP:
        urls["steps_url"] = f"{path}/steps"
    return urls


def _error(row: JobRow) -> Object | None:
    if row.error_code is None:
        return None
    shown = {
        "code": row.error_code,
        "message": row.error_message or "",
        "param": row.error_param,
    }
    lines = [error["line"] for error in row.errors or [] if error.get("line") is not None]
    return shown | ({"line": lines[0]} if lines else {})


def _errors(row: JobRow, counts: dict[str, int]) -> dict[str, Any]:
    """How often rows failed for each reason; and which was the commonest where none succeeded."""
    shown: dict[str, Any] = {"error_counts": counts}
    if has_ended(row.state) and not row.rows_completed:
        code = max(counts, key=lambda code: (counts[code], code))
        shown["commonest_error"] = {"code": code, "count": counts[code]}
    return shown


def _files(row: JobRow) -> list[Object]:
    found = (("output", row.output_file_id), ("errors", row.error_file_id))
    return [
        {"name": name, "file_id": file_id, "content_url": f"/v1/files/{file_id}/content"}
        for name, file_id in found
        if file_id is not None
    ]


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(0.0, end - start), 3)
