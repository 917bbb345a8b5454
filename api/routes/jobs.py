"""Jobs: submit, look, wait, list, cancel."""

from __future__ import annotations

import json
from hashlib import sha256
from http import HTTPStatus
from typing import Any, NamedTuple

from flask import Response, request
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from api import parsing, rendering
from api.objects import EventList, Job, JobList
from api.requests import JobRequest
from api.routes.replies import cancel_job, first_use, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, header, query
from api.services import Services
from shared import lifecycle
from shared.db.events import list_events
from shared.db.jobs import KIND_PREFIXES, JobRow, get_job, list_jobs
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    ModelNotFound,
    NotFound,
    PressrunError,
    StreamingUnsupported,
    UnsupportedEndpoint,
    UnsupportedParameter,
)
from shared.ids import new_job_id
from shared.specs import ENDPOINTS, parse_body
from shared.states import JobState

routes = RouteTable("Jobs", "Work of any kind: one row each, from submit to result")

SUBMIT_ROUTE = "POST /v1/jobs"
MOST_EVENTS = 1_000


class Submission(NamedTuple):
    """A request to submit that was found good."""

    endpoint: str
    body: dict[str, Any]
    model: str
    pool: str
    metadata: dict[str, str] | None
    priority: int
    expires_in_seconds: float | None


@routes.post(
    "/v1/jobs",
    body=JobRequest,
    parameters=(IDEMPOTENCY_KEY,),
    answers={202: Job, 200: Job},
    errors=(
        UnsupportedParameter,
        UnsupportedEndpoint,
        StreamingUnsupported,
        ModelNotFound,
        IdempotencyMismatch,
    ),
)
def create_job(services: Services, tenant_id: str) -> Response:
    """Submits one inference call as a job."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    key = parsing.idempotency_key(request)
    if key is not None:
        return _create_once(services, tenant_id, key, document)
    submission = _read_submission(services, tenant_id, document)
    job_id = new_job_id()
    services.intake.add(
        lifecycle.NewGeneration(
            job_id,
            tenant_id,
            submission.pool,
            submission.endpoint,
            submission.model,
            json.dumps(submission.body),
            submission.metadata,
            submission.priority,
            submission.expires_in_seconds,
        )
    )
    return _accepted(services, job_id, submission)


def _create_once(services: Services, tenant_id: str, key: str, document: Any) -> Response:
    fingerprint = sha256(parsing.canonical(document)).digest()
    first = first_use(services, tenant_id, SUBMIT_ROUTE, key, fingerprint)
    if first is None:
        submission = _read_submission(services, tenant_id, document)
        job_id = new_job_id()
        once = lifecycle.Idempotency(SUBMIT_ROUTE, key, fingerprint)
        try:
            with services.transaction() as connection:
                _submit(
                    connection,
                    services,
                    tenant_id,
                    job_id=job_id,
                    submission=submission,
                    idempotency=once,
                )
        except IntegrityError:
            # Somebody with the same key was quicker; the database has let us wait for them.
            first = first_use(services, tenant_id, SUBMIT_ROUTE, key, fingerprint)
            if first is None:
                raise
        else:
            return _accepted(services, job_id, submission)
    reply = _show(services, tenant_id, first)
    reply.headers["Location"] = f"/v1/jobs/{first}"
    return reply


def _read_submission(services: Services, tenant_id: str, document: Any) -> Submission:
    asked = parsing.validate(JobRequest, document)
    try:
        spec = parse_body(asked.endpoint, asked.body)
    except UnsupportedEndpoint:
        raise
    except PressrunError as error:
        inside = f"body.{error.param}" if error.param else "body"
        raise type(error)(error.message, param=inside) from None
    model = services.models.serving(tenant_id, spec.model, asked.endpoint, param="body.model")
    return Submission(
        asked.endpoint,
        asked.body,
        model.id,
        model.pool,
        asked.metadata,
        asked.priority,
        asked.expires_in_seconds,
    )


def _submit(
    connection: Connection,
    services: Services,
    tenant_id: str,
    *,
    job_id: str,
    submission: Submission,
    idempotency: lifecycle.Idempotency,
) -> None:
    lifecycle.submit_generation(
        connection,
        job_id=job_id,
        tenant_id=tenant_id,
        window=services.settings.ready_window,
        idempotency=idempotency,
        **submission._asdict(),
    )


def _accepted(services: Services, job_id: str, submission: Submission) -> Response:
    services.bell.ring(submission.pool)
    body = rendering.new_job(
        job_id,
        endpoint=submission.endpoint,
        model=submission.model,
        metadata=submission.metadata,
        expires_in_seconds=submission.expires_in_seconds,
    )
    return json_reply(
        body, HTTPStatus.ACCEPTED, {"Location": f"/v1/jobs/{job_id}", "Retry-After": "1"}
    )


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
            services.waiter.wait(job_id, seconds)
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
        query("endpoint", "Only jobs of this endpoint", type="string", enum=[*ENDPOINTS]),
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
            endpoint=parsing.choice(request, "endpoint", ENDPOINTS),
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
    body = rendering.job_with_result(row, result)
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
