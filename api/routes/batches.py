"""Batches: OpenAI's view of jobs that run a file of calls."""

from __future__ import annotations

from flask import Response, request
from sqlalchemy import Connection

from api import batch_rendering, parsing, rendering
from api.idempotency import once_for
from api.limits import DEFAULT_PRIORITY
from api.requests import BatchRequest
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable
from api.services import Services
from api.shapes import Batch, BatchList
from api.webhook_requests import job_webhook
from shared import lifecycle
from shared.db.files import hold_file
from shared.db.jobs import JobRow, get_job, list_jobs
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    SigningSecretMissing,
    UnsupportedEndpoint,
    UrlNotAllowed,
)
from shared.ids import new_batch_id
from shared.pools import UPKEEP
from shared.specs import ANY_ENDPOINT, spec_for

routes = RouteTable("Batches", "Files of calls, run as a whole")

SUBMIT_ROUTE = "POST /v1/batches"


@routes.post(
    "/v1/batches",
    body=BatchRequest,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Batch},
    errors=(
        UnsupportedEndpoint,
        NotFound,
        IdempotencyMismatch,
        UrlNotAllowed,
        SigningSecretMissing,
    ),
)
def create_batch(services: Services, tenant_id: str) -> Response:
    """Submits an uploaded file of calls. Its lines are checked before any of them runs."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(SUBMIT_ROUTE, parsing.idempotency_key(request), document)
    first = once.first_use(services, tenant_id)
    if first is not None:
        return json_reply(_show(services, tenant_id, first))
    return json_reply(_submit(services, tenant_id, _read(document), once.for_submit()))


def _read(document: object) -> BatchRequest:
    asked = parsing.validate(BatchRequest, document)
    if asked.endpoint != ANY_ENDPOINT:
        spec_for(asked.endpoint)
    return asked


def _submit(
    services: Services, tenant_id: str, asked: BatchRequest, once: lifecycle.Idempotency | None
) -> rendering.Object:
    batch_id = new_batch_id()
    spec: dict[str, object] = {"completion_window": asked.completion_window}
    if asked.output_expires_after is not None:
        spec["output_expires_after_seconds"] = asked.output_expires_after.seconds
    seconds = parsing.window_seconds(asked.completion_window)
    webhook = job_webhook(services, tenant_id, asked.webhook)
    with services.transaction() as connection:
        _require_input(connection, tenant_id, asked.input_file_id)
        lifecycle.submit_batch(
            connection,
            job_id=batch_id,
            tenant_id=tenant_id,
            endpoint=asked.endpoint,
            input_file_id=asked.input_file_id,
            spec=spec,
            metadata=asked.metadata,
            priority=DEFAULT_PRIORITY,
            expires_in_seconds=seconds,
            window=services.settings.ready_window,
            idempotency=once,
        )
        lifecycle.attach_webhook(connection, batch_id, webhook)
        row = _get(connection, tenant_id, batch_id)
    services.bell.ring(UPKEEP)
    return batch_rendering.batch(row)


def _require_input(connection: Connection, tenant_id: str, file_id: str) -> None:
    known = parsing.is_id(file_id)
    file = hold_file(connection, tenant_id, file_id) if known else None
    if file is None:
        raise NotFound("there is no such file", param="input_file_id")
    if file.purpose != "batch":
        raise InvalidRequest(
            f"the file's purpose is '{file.purpose}', not 'batch'", param="input_file_id"
        )


@routes.get("/v1/batches", parameters=(LIMIT, AFTER), answers={200: BatchList})
def list_batches(services: Services, tenant_id: str) -> Response:
    """Batches, newest first."""
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    after = parsing.cursor(request)
    with services.autocommit.connect() as connection:
        rows = list_jobs(connection, tenant_id, kinds=["batch"], after=after, limit=limit + 1)
    return json_reply(rendering.page([batch_rendering.batch(row) for row in rows], limit))


@routes.get("/v1/batches/<batch_id>", answers={200: Batch})
def retrieve_batch(services: Services, tenant_id: str, batch_id: str) -> Response:
    """A batch; its counts move while it runs."""
    return json_reply(_show(services, tenant_id, batch_id))


@routes.post("/v1/batches/<batch_id>/cancel", answers={200: Batch}, errors=(Conflict,))
def cancel_batch(services: Services, tenant_id: str, batch_id: str) -> Response:
    """Asks a batch to stop; rows that are done are kept. Asking again changes nothing."""
    parsing.one_id(batch_id, "batch")
    row, _, _ = cancel_job(services, tenant_id, batch_id, kind="batch")
    return json_reply(batch_rendering.batch(row))


def _show(services: Services, tenant_id: str, batch_id: str) -> rendering.Object:
    parsing.one_id(batch_id, "batch")
    with services.autocommit.connect() as connection:
        return batch_rendering.batch(_get(connection, tenant_id, batch_id))


def _get(connection: Connection, tenant_id: str, batch_id: str) -> JobRow:
    found = get_job(connection, tenant_id, batch_id)
    if found is None or found[0].kind != "batch":
        raise NotFound("there is no such batch")
    return found[0]
