"""What several routes do: answer JSON, find a job by any name, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from api import parsing, rendering
from api.services import Services
from shared import lifecycle
from shared.db.idempotency import find_client_id
from shared.db.jobs import JobRow, get_job, is_our_id
from shared.errors import Conflict, NotFound
from shared.pools import UPKEEP
from shared.states import JobState, StopReason


def json_reply(
    body: str | Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON response; a str is taken as JSON already."""
    text = body if isinstance(body, str) else rendering.compact(body)
    return Response(text, status, headers, content_type="application/json")


def own_job_id(services: Services, tenant_id: str, name: str) -> str:
    """Our id of the job that the caller calls so, be it ours already (then nobody is asked whether
    there is such a job). Raises NotFound."""
    if is_our_id(name):
        return parsing.one_id(name, "job")
    parsing.job_name(name)
    with services.autocommit.connect() as connection:
        found = find_client_id(connection, tenant_id, name)
    if found is None:
        raise NotFound("there is no such job")
    return found.job_id


def cancel_job(
    services: Services, tenant_id: str, job_id: str, *, kind: str | None = None
) -> tuple[JobRow, str | None, bool]:
    """Asks a job to stop. Returns it as it is then, its result, and whether it is stopping now by
    this call; asking again changes nothing.

    Raises NotFound, or Conflict when it has ended otherwise or is being assembled. ``kind``
    leaves jobs of other kinds alone.
    """
    with services.transaction() as connection:
        found = get_job(connection, tenant_id, job_id)
        if found is None or kind not in {None, found[0].kind}:
            raise NotFound(f"there is no such {kind or 'job'}")
        stopped = lifecycle.request_stop(
            connection, tenant_id=tenant_id, job_id=job_id, reason=StopReason.CANCELLED
        )
        found = get_job(connection, tenant_id, job_id) or found
    row = found[0]
    if stopped and row.kind == "batch":
        services.bell.ring(UPKEEP)
    if not stopped and row.state != JobState.CANCELLED:
        if rendering.has_ended(row.state):
            raise Conflict(f"this {row.kind} job has ended already: it {_ended(row.state)}")
        if row.stop_reason is None:
            raise Conflict("the results are being put together: it is too late to cancel")
    return (*found, stopped and not rendering.has_ended(row.state))


def _ended(state: str) -> str:
    return state if state in {JobState.SUCCEEDED, JobState.FAILED} else f"is {state}"
