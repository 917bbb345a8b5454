"""Jobs: submit, look, wait, list, cancel."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, request

from api import parsing, rendering
from api.links import has_links, life_stamp, with_fresh_links
from api.media_inputs import check_data_urls
from api.objects import EventList, Job, JobList
from api.requests import JobRequest
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, header, query
from api.services import Services
from api.submitting import Submission, once_for, prepare, submit_once
from shared.db.events import list_events
from shared.db.jobs import KIND_PREFIXES, JobRow, get_job, list_jobs
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    MediaTooLarge,
    ModelNotFound,
    NotFound,
    PressrunError,
    StreamingUnsupported,
    UnsupportedEndpoint,
    UnsupportedMedia,
    UnsupportedParameter,
)
from shared.specs import ANY_ENDPOINT, ENDPOINTS
from shared.states import JobState

routes = RouteTable("Jobs", "Work of any kind: one row each, from submit to result")

SUBMIT_ROUTE = "POST /v1/jobs"
MOST_EVENTS = 1_000
JOB_ENDPOINTS = (*ENDPOINTS, ANY_ENDPOINT)


@routes.post(
    "/v1/jobs",
    body=JobRequest,
    parameters=(IDEMPOTENCY_KEY,),
    answers={202: Job, 200: Job},
    errors=(
        UnsupportedParameter,
        UnsupportedEndpoint,
        StreamingUnsupported,
        UnsupportedMedia,
        MediaTooLarge,
        ModelNotFound,
        IdempotencyMismatch,
    ),
)
def create_job(services: Services, tenant_id: str) -> Response:
    """Submits one call of any endpoint as a job. A campaign, and a video of several parts, becomes
    a graph of steps."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(SUBMIT_ROUTE, parsing.idempotency_key(request), document)
    job_id, submission = submit_once(
        services, tenant_id, once, lambda: _prepare(services, tenant_id, document)
    )
    headers = {"Location": f"/v1/jobs/{job_id}"}
    if submission is None:
        reply = _show(services, tenant_id, job_id)
        reply.headers.update(headers)
        return reply
    body = rendering.job_with_result(submission.as_new_job(), None)
    return json_reply(body, HTTPStatus.ACCEPTED, headers | {"Retry-After": "1"})


def _prepare(services: Services, tenant_id: str, document: Any) -> Submission:
    asked = parsing.validate(JobRequest, document)
    terms = {
        "metadata": asked.metadata,
        "priority": asked.priority,
        "expires_in_seconds": asked.expires_in_seconds,
    }
    try:
        check_data_urls(asked.body)
        return prepare(services, tenant_id, asked.endpoint, asked.body, **terms)
    except UnsupportedEndpoint:
        raise
    except PressrunError as error:
        inside = f"body.{error.param}" if error.param else "body"
        raise type(error)(error.message, param=inside) from None


@routes.get(
    "/v1/jobs/<job_id>",
    parameters=(
        query("wait", "Answer once the job has ended, or after so many seconds", type="number"),
        header("If-None-Match", "An ETag; 304 while the job is as it was then", type="string"),
    ),
    answers={200: Job, 304: "As it was"},
)
def retrieve_job(services: Services, tenant_id: str, job_id: str) -> Response:
    """A job with its result."""
    parsing.one_id(job_id, "job")
    seconds = parsing.wait_seconds(request, services.settings.max_wait_seconds)
    if seconds:
        row, _ = _get(services, tenant_id, job_id)
        if not rendering.has_ended(row.state):
            services.waiter.wait(tenant_id, job_id, seconds)
    return _show(services, tenant_id, job_id)


def _get(services: Services, tenant_id: str, job_id: str) -> tuple[JobRow, str | None]:
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, job_id)
    if found is None:
        raise NotFound("there is no such job")
    return found


def _show(services: Services, tenant_id: str, job_id: str) -> Response:
    row, result = _get(services, tenant_id, job_id)
    body = rendering.job_with_result(row, result)
    tag = rendering.etag(body)
    if has_links(result):
        tag = rendering.etag(body + life_stamp(services))
        body = rendering.job_with_result(row, with_fresh_links(services, tenant_id, result))
    headers = {"ETag": tag}
    if not rendering.has_ended(row.state):
        headers["Retry-After"] = str(rendering.retry_after(row))
    asked = request.headers.get("If-None-Match")
    if asked is not None and request.if_none_match.contains_weak(tag[3:-1]):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return json_reply(body, HTTPStatus.OK, headers)


@routes.get(
    "/v1/jobs",
    parameters=(
        LIMIT,
        AFTER,
        query("state", "Only jobs in this state", type="string", enum=[*map(str, JobState)]),
        query("kind", "Only jobs of this kind", type="string", enum=[*KIND_PREFIXES]),
        query("endpoint", "Only jobs of this endpoint", type="string", enum=[*JOB_ENDPOINTS]),
    ),
    answers={200: JobList},
)
def list_all_jobs(services: Services, tenant_id: str) -> Response:
    """Jobs, newest first, without their results."""
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    kind = parsing.choice(request, "kind", KIND_PREFIXES)
    with services.autocommit.connect() as connection:
        rows = list_jobs(
            connection,
            tenant_id,
            kinds=[kind] if kind else [*KIND_PREFIXES],
            after=parsing.cursor(request),
            limit=limit + 1,
            state=parsing.choice(request, "state", [*map(str, JobState)]),
            endpoint=parsing.choice(request, "endpoint", JOB_ENDPOINTS),
        )
    shown = [rendering.job(row) for row in rows]
    return json_reply(rendering.compact(rendering.page(shown, limit)))


@routes.post(
    "/v1/jobs/<job_id>/cancel",
    answers={202: Job, 200: Job},
    errors=(Conflict,),
)
def cancel_any_job(services: Services, tenant_id: str, job_id: str) -> Response:
    """Asks a job to stop: what waits ends at once, what runs within a step. Asking again changes
    nothing."""
    row, result, stopping = cancel_job(services, tenant_id, parsing.one_id(job_id, "job"))
    body = rendering.job_with_result(row, with_fresh_links(services, tenant_id, result))
    return json_reply(body, HTTPStatus.ACCEPTED if stopping else HTTPStatus.OK)


@routes.get(
    "/v1/jobs/<job_id>/events",
    parameters=(
        query(
            "limit",
            "Most events on a page",
            type="integer",
            minimum=1,
            maximum=MOST_EVENTS,
            default=100,
        ),
        query("after", "Start after the event with this id", type="string"),
    ),
    answers={200: EventList},
)
def list_job_events(services: Services, tenant_id: str, job_id: str) -> Response:
    """What happened to a job, oldest first."""
    parsing.one_id(job_id, "job")
    limit = parsing.integer(request, "limit", default=100, least=1, most=MOST_EVENTS)
    after = parsing.integer(request, "after", default=0, least=0, most=2**59)
    with services.autocommit.connect() as connection:
        rows = list_events(connection, tenant_id, job_id=job_id, after=after, limit=limit + 1)
        if not rows and get_job(connection, tenant_id, job_id) is None:
            raise NotFound("there is no such job")
    shown = [rendering.event(row) for row in rows]
    return json_reply(rendering.compact(rendering.page(shown, limit)))
