"""From jobs of kind response to OpenAI's responses. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api import rendering
from api.rendering import Object
from shared.db.briefs import Brief
from shared.db.jobs import JobRow
from shared.states import JobState
from shared.translation import responses

STATUS = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "failed",
}
"""Of responses without an answer. Others say themselves whether they are complete."""


def response(row: JobRow, brief: Brief) -> Object:
    """A response, done or not. ``brief`` has the members ``responses.SHOWN`` of the body."""
    if brief.result is not None:
        return brief.result
    return responses.response(
        row.id,
        created_at=rendering.created_at_of(row.id, row.created_at),
        model=row.model or "",
        status=STATUS[JobState(row.state)],
        asked=brief.asked,
        error=_error(row),
    )


def accepted(row: JobRow, asked: Mapping[str, Any]) -> Object:
    """A response that was accepted this moment."""
    return response(row, Brief(dict(asked), None))


def opening(row: JobRow, brief: Brief) -> Object:
    """A response as it was accepted, whatever has become of it since: as streams begin."""
    in_background = brief.asked.get("background") is True
    then = JobState.QUEUED if in_background else JobState.RUNNING
    return response(row._replace(state=then), Brief(brief.asked, None))


def items(response_id: str, asked: Any, *, after: str | None, limit: int, order: str) -> Object:
    """A page of what a response was made of. Raises ValueError for an ``after`` that is none of
    its items."""
    listed = responses.items_of(response_id, asked)
    if order == "desc":
        listed.reverse()
    start = 0
    if after is not None:
        start = 1 + [item["id"] for item in listed].index(after)
    return rendering.page(listed[start : start + limit + 1], limit)


def _error(row: JobRow) -> Object | None:
    """Clients know a closed list of codes: ours stands in ``type``."""
    if row.state == JobState.EXPIRED:
        message = "it was not done before its deadline"
        return {"code": "server_error", "type": "expired", "message": message, "param": None}
    if row.state != JobState.FAILED:
        return None
    return {
        "code": "server_error" if row.error_param is None else "invalid_prompt",
        "type": row.error_code,
        "message": row.error_message or "",
        "param": row.error_param,
    }
