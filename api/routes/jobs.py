"""Jobs: submit, put, list, cancel."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Response, request
from sqlalchemy.exc import IntegrityError

from api import job_rendering, parsing, rendering
from api.deadlines import CANCEL_AFTER, deadline_seconds
from api.idempotency import once_for
from api.links import with_fresh_links
from api.media_inputs import check_data_urls
from api.preferring import preference
from api.requests import JobRequest
from api.routes.replies import cancel_job, json_reply, own_job_id
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, header, query
from api.services import Services
from api.shapes import Job, JobList, JobOrEstimate
from api.showing import find_job, show
from api.submitting import Submission, prepare, submit, submit_once
from api.webhook_requests import job_webhook
from shared.db.idempotency import find_client_id
from shared.db.jobs import KIND_PREFIXES, is_our_id, list_jobs
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    InvalidSchema,
    MediaTooLarge,
    ModelNotFound,
    PressrunError,
    SigningSecretMissing,
    StreamingUnsupported,
    TooManyRequests,
    UnsupportedEndpoint,
    UnsupportedMedia,
    UnsupportedParameter,
    UrlNotAllowed,
)
from shared.lifecycle import ClientId
from shared.specs import ANY_ENDPOINT, ENDPOINTS
from shared.states import JobState

routes = RouteTable("Jobs", "Work of any kind: one row each, from submit to result")

SUBMIT_ROUTE = "POST /v1/jobs"
JOB_ENDPOINTS = (*ENDPOINTS, ANY_ENDPOINT)
PREFER = header(
    "Prefer",
    "`wait=N`: answer with the result if it is there within N seconds, 60 at most; "
    "`respond-async`: don't wait. What was done stands in `Preference-Applied`",
    type="string",
)
DEADLINE = header(
    CANCEL_AFTER,
    "Give up after so long: `90s`, `5m`, `2h`",
    type="string",
    pattern="^[1-9][0-9]*[smh]$",
)
_ERRORS = (
    UnsupportedParameter,
    UnsupportedEndpoint,
    StreamingUnsupported,
    InvalidSchema,
    UnsupportedMedia,
    MediaTooLarge,
    ModelNotFound,
    IdempotencyMismatch,
    UrlNotAllowed,
    SigningSecretMissing,
)

Accepted = tuple[str, Submission | None]
"""A job's id, and what made it if this call did."""


@routes.post(
    "/v1/jobs",
    body=JobRequest,
    parameters=(IDEMPOTENCY_KEY, PREFER, DEADLINE),
    answers={202: Job, 200: JobOrEstimate},
    errors=_ERRORS,
)
def create_job(services: Services, tenant_id: str) -> Response:
    """Submits one call of any endpoint as a job. A campaign, and a video of several parts, becomes
    a graph of steps. 200: the job was there already, or is done while the caller waited; with
    `dry_run`, what it would take."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(SUBMIT_ROUTE, parsing.idempotency_key(request), document)
    return _accept(
        services,
        tenant_id,
        document,
        lambda make: submit_once(services, tenant_id, once, make),
    )


@routes.put(
    "/v1/jobs/<client_id>",
    body=JobRequest,
    parameters=(PREFER, DEADLINE),
    answers={202: Job, 200: JobOrEstimate},
    errors=_ERRORS,
)
def put_job(services: Services, tenant_id: str, client_id: str) -> Response:
    """Submits a job under an id of the caller's own, once: the same body again is answered 200 with
    the same job. The id can stand for ours wherever a job is asked for."""
    if not parsing.is_client_id(client_id) or is_our_id(client_id):
        raise InvalidRequest(
            "an id of your own is 1 to 64 letters, digits and '._:-', begins with a letter or a "
            "digit, and not as ours do",
            param="client_id",
        )
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    own = ClientId(client_id, parsing.fingerprint(document))
    return _accept(
        services, tenant_id, document, lambda make: _put(services, tenant_id, own, make), own
    )


def _put(
    services: Services, tenant_id: str, own: ClientId, make: Callable[[], Submission]
) -> Accepted:
    first = _first_put(services, tenant_id, own)
    if first is not None:
        return first, None
    submission = make()
    try:
        submit(services, tenant_id, submission)
    except IntegrityError:
        # Somebody put the same id and was quicker; the database has let us wait for them.
        first = _first_put(services, tenant_id, own)
        if first is None:
            raise
        return first, None
    return submission.job_id, submission


def _first_put(services: Services, tenant_id: str, own: ClientId) -> str | None:
    with services.autocommit.connect() as connection:
        first = find_client_id(connection, tenant_id, own.value)
    if first is not None and first.fingerprint != own.fingerprint:
        raise IdempotencyMismatch("this id was put with another body", param="client_id")
    return None if first is None else first.job_id


def _accept(
    services: Services,
    tenant_id: str,
    document: Any,
    submit_it: Callable[[Callable[[], Submission]], Accepted],
    own: ClientId | None = None,
) -> Response:
    if isinstance(document, dict) and document.get("dry_run") is True:
        from api.dry_runs import estimate  # few processes are ever asked

        found = _prepare(services, tenant_id, document, own)
        return json_reply(estimate(services, tenant_id, found))
    job_id, submission = submit_it(lambda: _prepare(services, tenant_id, document, own))
    preferred = preference(request)
    waited = bool(preferred.wait_seconds) and _wait(
        services, tenant_id, job_id, preferred.wait_seconds
    )
    if submission is None or waited:
        row, result = find_job(services, tenant_id, job_id)
        done = submission is None or rendering.has_ended(row.state)
        status = HTTPStatus.OK if done else HTTPStatus.ACCEPTED
        reply = show(services, tenant_id, row, result, status)
    else:
        body = job_rendering.job_with_result(submission.as_new_job(), None)
        reply = json_reply(body, HTTPStatus.ACCEPTED, {"Retry-After": "1"})
    reply.headers["Location"] = f"/v1/jobs/{job_id}"
    applied = preferred.applied(waited=waited)
    if applied is not None:
        reply.headers["Preference-Applied"] = applied
    return reply


def _wait(services: Services, tenant_id: str, job_id: str, seconds: float) -> bool:
    """Whether there was a place to wait in."""
    try:
        with services.waiter.place(tenant_id) as sleep:
            sleep(job_id, seconds)
    except TooManyRequests:
        return False
    return True


def _prepare(services: Services, tenant_id: str, document: Any, own: ClientId | None) -> Submission:
    asked = parsing.validate(JobRequest, document)
    terms = {
        "metadata": asked.metadata,
        "priority": asked.priority,
        "expires_in_seconds": deadline_seconds(request, asked.expires_in_seconds, asked.expires_at),
        "client_id": own,
        "webhook": job_webhook(services, tenant_id, asked.webhook),
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
    shown = [job_rendering.job(row) for row in rows]
    return json_reply(rendering.compact(rendering.page(shown, limit)))


@routes.post(
    "/v1/jobs/<job_id>/cancel",
    answers={202: Job, 200: Job},
    errors=(Conflict,),
)
def cancel_any_job(services: Services, tenant_id: str, job_id: str) -> Response:
    """Asks a job to stop: what waits ends at once, what runs within a step. Asking again changes
    nothing."""
    row, result, stopping = cancel_job(services, tenant_id, own_job_id(services, tenant_id, job_id))
    body = job_rendering.job_with_result(row, with_fresh_links(services, tenant_id, result))
    return json_reply(body, HTTPStatus.ACCEPTED if stopping else HTTPStatus.OK)
