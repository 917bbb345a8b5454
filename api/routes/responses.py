"""Responses, as OpenAI's clients ask for them: jobs of kind ``response``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from flask import Response, request

from api import parsing, rendering, response_rendering
from api.idempotency import once_for
from api.response_events import ResponseNarrator
from api.routes.deletions import with_record
from api.routes.inference import CANCEL_ON_DISCONNECT, DIRECT_ERRORS, answer, json_document
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, query
from api.services import Services
from api.shapes import DeletedResponse, ResponseItemList, ResponseObject
from api.streaming import Terms, cancels_of, follow_job, stream_call
from api.submitting import Submission, prepare, submit_once
from shared.db.briefs import Brief, briefs_of
from shared.db.jobs import JobRow, get_job
from shared.errors import (
    Conflict,
    ContextLengthExceeded,
    InvalidRequest,
    InvalidSchema,
    NotFound,
    TooManyRequests,
)
from shared.lifecycle.deletion import request_job_deletion
from shared.specs import ResponseSpec, parse_body
from shared.translation import RESPONSES
from shared.translation.responses import SHOWN

routes = RouteTable(
    "Responses",
    "A turn of a conversation, answered while the caller waits or in the background. Each is an "
    "ordinary job under its own id, and is kept until it is deleted",
)

CANCEL_PATIENCE_SECONDS = 5.0
"""What runs stops within a step: whoever cancels is told so, if it takes no longer."""
ORDERS = ("asc", "desc")
MAX_EVENT_NUMBER = 2**31 - 1


@routes.post(
    "/v1/responses",
    body=ResponseSpec,
    parameters=(IDEMPOTENCY_KEY, CANCEL_ON_DISCONNECT),
    answers={200: ResponseObject},
    streams=True,
    errors=(*DIRECT_ERRORS, ContextLengthExceeded, InvalidSchema, NotFound, Conflict),
)
def create_response(services: Services, tenant_id: str) -> Response:
    """Answers a turn of a conversation, which may go on from a `previous_response_id`. With
    `background: true` the answer is a response that is queued: fetch it by its id. With
    `stream: true` either is told by typed events as it happens."""
    document = json_document(services)
    if document.get("stream") is True:
        return _stream(services, tenant_id, document)
    if document.get("background") is not True:
        return answer(services, tenant_id, RESPONSES, document)
    once = once_for(f"POST {RESPONSES}", parsing.idempotency_key(request), document)
    response_id, submission = submit_once(
        services, tenant_id, once, lambda: _prepare(services, tenant_id, document)
    )
    if submission is None:
        return _reply(*_find(services, tenant_id, response_id))
    return json_reply(response_rendering.accepted(submission.as_new_job(), submission.body))


def _prepare(services: Services, tenant_id: str, document: dict[str, Any]) -> Submission:
    return prepare(services, tenant_id, RESPONSES, document)


def _stream(services: Services, tenant_id: str, document: dict[str, Any]) -> Response:
    spec = parse_body(RESPONSES, document, streams=True)
    terms = Terms(
        lambda response_id, _: _narrator(*_find(services, tenant_id, response_id)),
        cancels_of(request),
        settles=document.get("background") is not True,
    )
    return stream_call(
        services,
        tenant_id,
        once_for(f"POST {RESPONSES}", parsing.idempotency_key(request), document),
        lambda: prepare(services, tenant_id, RESPONSES, document, spec),
        terms,
    )


def _narrator(row: JobRow, brief: Brief, after: int = -1) -> ResponseNarrator:
    return ResponseNarrator(
        response_rendering.opening(row, brief),
        of_job=lambda ended: response_rendering.response(ended, Brief(brief.asked, None)),
        after=after,
    )


@routes.get(
    "/v1/responses/<response_id>",
    parameters=(
        query(
            "stream",
            "Tell its events, from the first one on and as they happen",
            type="string",
            enum=["true", "false"],
            default="false",
        ),
        query(
            "starting_after",
            "Of a stream: only the events after the one with this `sequence_number`; else ignored",
            type="integer",
            minimum=0,
            maximum=MAX_EVENT_NUMBER,
        ),
    ),
    answers={200: ResponseObject},
    streams=True,
    errors=(TooManyRequests,),
)
def retrieve_response(services: Services, tenant_id: str, response_id: str) -> Response:
    """A response and, once it has one, its answer; or its events, however it was made. Those of one
    that was made without `stream` come all at its end."""
    after = parsing.integer(request, "starting_after", default=-1, least=0, most=MAX_EVENT_NUMBER)
    found = _find(services, tenant_id, response_id)
    if parsing.choice(request, "stream", ("true", "false")) == "true":
        return follow_job(services, tenant_id, response_id, _narrator(*found, after))
    return _reply(*found)


@routes.get(
    "/v1/responses/<response_id>/input_items",
    parameters=(
        LIMIT,
        AFTER,
        query("order", "By their place", type="string", enum=[*ORDERS], default="desc"),
    ),
    answers={200: ResponseItemList},
)
def list_input_items(services: Services, tenant_id: str, response_id: str) -> Response:
    """The turns that a response was made of, those of earlier responses among them; the last one
    first unless asked otherwise."""
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    order = parsing.choice(request, "order", ORDERS) or "desc"
    after = parsing.cursor(request)
    _, brief = _find(services, tenant_id, response_id, members=("input",))
    try:
        shown = response_rendering.items(
            response_id, brief.asked["input"], after=after, limit=limit, order=order
        )
    except ValueError:
        raise InvalidRequest("'after' is no item of this response", param="after") from None
    return json_reply(shown)


@routes.post("/v1/responses/<response_id>/cancel", answers={200: ResponseObject})
def cancel_response(services: Services, tenant_id: str, response_id: str) -> Response:
    """Asks a response to stop: what waits ends at once, what runs within a step. It changes nothing
    about one that has ended, and asking again changes nothing."""
    _find(services, tenant_id, response_id)
    with suppress(Conflict):  # it has ended since, or before
        row, _, _ = cancel_job(services, tenant_id, response_id, kind="response")
        if not rendering.has_ended(row.state):
            services.waiter.wait(tenant_id, response_id, CANCEL_PATIENCE_SECONDS)
    return _reply(*_find(services, tenant_id, response_id))


@routes.delete("/v1/responses/<response_id>", answers={200: DeletedResponse}, errors=(Conflict,))
def delete_response(services: Services, tenant_id: str, response_id: str) -> Response:
    """Deletes a response that has ended: what was asked, and its answer. `Pressrun-Deletion` is the
    record of it."""
    row, _ = _find(services, tenant_id, response_id)
    if not rendering.has_ended(row.state):
        raise Conflict("this response has not ended: cancel it first")
    with services.transaction() as connection:
        begun = request_job_deletion(
            connection,
            tenant_id=tenant_id,
            job_id=response_id,
            grace_seconds=services.settings.deletion_grace_seconds,
        )
    return with_record(
        json_reply({"id": response_id, "object": "response.deleted", "deleted": True}), begun
    )


def _find(
    services: Services, tenant_id: str, response_id: str, members: tuple[str, ...] = SHOWN
) -> tuple[JobRow, Brief]:
    parsing.one_id(response_id, "response")
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, response_id)
        if found is None or found[0].kind != "response":
            raise NotFound("there is no such response")
        briefs = briefs_of(connection, tenant_id, [response_id], members=members)
    if response_id not in briefs:
        raise NotFound("there is no such response")
    return found[0], briefs[response_id]


def _reply(row: JobRow, brief: Brief) -> Response:
    return json_reply(response_rendering.response(row, brief))
