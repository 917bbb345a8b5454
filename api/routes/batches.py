"""Batches: OpenAI's view of jobs that run a file of calls."""

from __future__ import annotations

from flask import Response, request

from api import batch_rendering, parsing, rendering
from api.batch_result_answers import DEFAULT_LINES, answer_results
from api.batch_results import MAX_LINES, STATUSES
from api.batch_submitting import get_batch, read_batch, submit_batch, submit_retry
from api.deadlines import CANCEL_AFTER
from api.idempotency import once_for
from api.requests import BatchRequest, BatchRetryRequest
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, header, query
from api.services import Services
from api.shapes import Batch, BatchList
from shared.db.jobs import list_jobs
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    SigningSecretMissing,
    StorageFull,
    StorageUnavailable,
    UnsupportedEndpoint,
    UrlNotAllowed,
)

routes = RouteTable("Batches", "Files of calls, run as a whole")

SUBMIT_ROUTE = "POST /v1/batches"
RETRY_ROUTE = "POST /v1/batches/{batch_id}/retry"
DEADLINE = header(
    CANCEL_AFTER,
    "Give up after so many seconds, minutes or hours, if that is before the completion window ends",
    type="string",
    pattern=r"^[1-9][0-9]{0,7}[smh]$",
)


@routes.post(
    "/v1/batches",
    body=BatchRequest,
    parameters=(IDEMPOTENCY_KEY, DEADLINE),
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
    """Submits an uploaded file of calls. Its lines are checked before any of them runs. With
    `dry_run`, that is all: the batch ends `completed`, with an `estimate`."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(SUBMIT_ROUTE, parsing.idempotency_key(request), document)
    first = once.first_use(services, tenant_id)
    if first is not None:
        return json_reply(_show(services, tenant_id, first))
    row = submit_batch(services, tenant_id, read_batch(document), once.for_submit())
    return json_reply(batch_rendering.batch(row))


@routes.get(
    "/v1/batches",
    parameters=(
        LIMIT,
        AFTER,
        query(
            "production",
            "The batches of the production with this id, which are listed nowhere else",
            type="string",
        ),
    ),
    answers={200: BatchList},
)
def list_batches(services: Services, tenant_id: str) -> Response:
    """Batches, newest first."""
    limit, after = parsing.page(request)
    production = request.args.get("production")
    if production is not None and not parsing.is_id(production):
        raise InvalidRequest("'production' must be an id", param="production")
    with services.autocommit.connect() as connection:
        rows = list_jobs(
            connection,
            tenant_id,
            kinds=["batch"],
            after=after,
            limit=limit + 1,
            production=production,
        )
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


@routes.post(
    "/v1/batches/<batch_id>/retry",
    body=BatchRetryRequest,
    parameters=(IDEMPOTENCY_KEY, DEADLINE),
    answers={200: Batch},
    errors=(Conflict, IdempotencyMismatch, UrlNotAllowed, SigningSecretMissing),
)
def retry_batch(services: Services, tenant_id: str, batch_id: str) -> Response:
    """A new batch of those rows of an ended one that have no answer. Its input file is made before
    it is validated; until then `input_file_id` is the first batch's."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(
        RETRY_ROUTE, parsing.idempotency_key(request), {"batch": batch_id, "body": document}
    )
    first = once.first_use(services, tenant_id)
    if first is not None:
        return json_reply(_show(services, tenant_id, first))
    asked = parsing.validate(BatchRetryRequest, document)
    row = submit_retry(services, tenant_id, batch_id, asked, once.for_submit())
    return json_reply(batch_rendering.batch(row))


@routes.get(
    "/v1/batches/<batch_id>/results",
    parameters=(
        query(
            "limit",
            "Most lines of the answer, which ends at 64 MiB too",
            type="integer",
            minimum=1,
            maximum=MAX_LINES,
            default=DEFAULT_LINES,
        ),
        query("after", "The `X-Next-After` of the answer before", type="string"),
        query(
            "status", "Only these rows; the same for all answers", type="string", enum=[*STATUSES]
        ),
    ),
    answers={
        200: "Lines as the output and error files have them, `application/x-ndjson`. "
        "`X-Next-After`: where to go on. `X-Incomplete: true`: more may come. `X-Last-Line`: how "
        "many lines were told by now"
    },
    errors=(StorageUnavailable, StorageFull),
)
def list_batch_results(services: Services, tenant_id: str, batch_id: str) -> Response:
    """Lines of rows that are done, also while the batch runs. Who goes on with `X-Next-After` gets
    each line once."""
    return answer_results(services, tenant_id, batch_id, request)


def _show(services: Services, tenant_id: str, batch_id: str) -> rendering.Object:
    with services.autocommit.connect() as connection:
        return batch_rendering.batch(get_batch(connection, tenant_id, batch_id))
