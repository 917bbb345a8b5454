"""Direct calls: an ordinary job, waited for.

The job is submitted like any other and keeps its promise whatever becomes of the call: when the
caller goes away or the time is up, the job goes on, and its result can be fetched by its id.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from flask import Response, request

from api.errors import STATUS, StillRunning, error_object, problem
from api.idempotency import Once
from api.services import Services
from api.submitting import Submission, submit_once
from shared.db.jobs import JobRow, get_job
from shared.errors import NotFound
from shared.states import JobState

JOB_HEADER = "x-pressrun-job"

_NO_CAPACITY = {"model_load_failed", "worker_lost"}
_NOT_HERE = {
    # Of a picture that the body names; and of no state that the caller could know.
    "not_found": HTTPStatus.BAD_REQUEST,
    "conflict": HTTPStatus.INTERNAL_SERVER_ERROR,
}


class Finished(NamedTuple):
    """A job that succeeded while its caller waited."""

    row: JobRow
    result: str
    """JSON."""


def call(
    services: Services, tenant_id: str, once: Once, make: Callable[[], Submission]
) -> Finished | Response:
    """Submits what ``make`` prepares and waits for its end. A response is the answer to anything
    but a success.

    Raises TooManyRequests before anything is accepted, and what ``submit_once`` raises.
    """
    with services.waiter.place(tenant_id) as sleep:
        job_id, _ = submit_once(services, tenant_id, once, make)
        sleep(job_id, services.settings.direct_seconds)
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, job_id)
    if found is None:
        raise NotFound("the job of this call was deleted")
    row, result = found
    if row.state == JobState.SUCCEEDED and result is not None:
        return Finished(row, result)
    return without_result(row)


class _Why(NamedTuple):
    """Why a job has no result, or none yet."""

    code: str
    message: str
    param: str | None
    status: int


def _why(row: JobRow) -> _Why:
    if row.state == JobState.FAILED:
        code = row.error_code or "internal_error"
        status = status_of(code, row.error_param)
        return _Why(code, row.error_message or "", row.error_param, status)
    if row.state in {JobState.CANCELLED, JobState.EXPIRED}:
        message = f"the job {row.id} was {_stopped(row.state)}"
        return _Why("conflict", message, None, STATUS["conflict"])
    message = f"the job goes on: GET /v1/jobs/{row.id} has its result when it is done"
    return _Why(StillRunning.code, message, None, STATUS[StillRunning.code])


def error_of(row: JobRow) -> dict[str, Any]:
    """Why the job has no result, as OpenAI's error object."""
    why = _why(row)
    return error_object(why.code, why.message, param=why.param, status=why.status)


def without_result(row: JobRow) -> Response:
    """The answer to a call whose job has no result, or none yet."""
    why = _why(row)
    reply = problem(request, why.code, why.message, param=why.param, status=why.status)
    # Asked again, the same work would begin once more beside the job that this call made.
    reply.headers["x-should-retry"] = "false"
    reply.headers[JOB_HEADER] = row.id
    return reply


def status_of(code: str, param: str | None) -> int:
    """The status of a failed job's code, which may be any engine's own: what names a field is the
    caller's to change."""
    if code in _NOT_HERE:
        return _NOT_HERE[code]
    if code in STATUS:
        return STATUS[code]
    if code in _NO_CAPACITY:
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.BAD_REQUEST if param is not None else HTTPStatus.INTERNAL_SERVER_ERROR


def _stopped(state: str) -> str:
    return "cancelled" if state == JobState.CANCELLED else "not done before its deadline"
