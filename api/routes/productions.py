"""Productions: a template and a table become checked copy."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from api import parsing, production_rendering, rendering
from api.deadlines import CANCEL_AFTER
from api.idempotency import once_for
from api.limits import MAX_VERSION
from api.production_previews import preview
from api.production_requests import PreviewRequest, ProductionRequest, submit_production
from api.rendering import Object
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, header, query
from api.services import Services
from api.shapes import Production, ProductionList, ProductionPreview
from shared.db.files import get_file
from shared.db.job_rows import JobRow
from shared.db.jobs import get_job, list_jobs
from shared.db.polling import Seen
from shared.db.productions import productions_of
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    ModelNotFound,
    NotFound,
    SigningSecretMissing,
    StorageFull,
    StorageUnavailable,
    UnsupportedParameter,
    UrlNotAllowed,
)
from shared.specs.productions import ENDPOINT, KIND

NOTHING = "there is no such production"
MEDIA_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
}
DEADLINE = header(
    CANCEL_AFTER,
    "Give up after so long: `90s`, `5m`, `2h`",
    type="string",
    pattern="^[1-9][0-9]{0,7}[smh]$",
)

routes = RouteTable("Productions", "A template and a table become checked copy")


@routes.post(
    ENDPOINT,
    body=ProductionRequest,
    parameters=(IDEMPOTENCY_KEY, DEADLINE),
    answers={202: Production},
    errors=(
        ModelNotFound,
        NotFound,
        UnsupportedParameter,
        IdempotencyMismatch,
        UrlNotAllowed,
        SigningSecretMissing,
    ),
)
def create_production(services: Services, tenant_id: str) -> Response:
    """Writes copy for every row of a table, by a template, and checks it. All rows are looked at
    before anything is written. With `dry_run`, that is all: the production ends `succeeded`, with
    an `estimate`."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(f"POST {ENDPOINT}", parsing.idempotency_key(request), document)
    production_id = once.first_use(services, tenant_id)
    if production_id is None:
        asked = parsing.validate(ProductionRequest, document)
        production_id = submit_production(services, tenant_id, asked, once)
    headers = {"Location": f"{ENDPOINT}/{production_id}", "Retry-After": "1"}
    return json_reply(_show(services, tenant_id, production_id), HTTPStatus.ACCEPTED, headers)


@routes.post(
    f"{ENDPOINT}/preview",
    body=PreviewRequest,
    answers={200: ProductionPreview},
    errors=(ModelNotFound, NotFound, UnsupportedParameter, StorageUnavailable, StorageFull),
)
def preview_production(services: Services, tenant_id: str) -> Response:
    """What would be asked for the first rows of the table. Accepts nothing."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(PreviewRequest, document)
    return json_reply(preview(services, tenant_id, asked))


@routes.get(ENDPOINT, parameters=(LIMIT, AFTER), answers={200: ProductionList})
def list_productions(services: Services, tenant_id: str) -> Response:
    """Productions, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = list_jobs(connection, tenant_id, kinds=[KIND], after=after, limit=limit + 1)
        found = productions_of(connection, tenant_id, [row.id for row in rows])
    shown = [production_rendering.production(row, found[row.id]) for row in rows if row.id in found]
    return json_reply(rendering.page(shown, limit))


@routes.get(
    f"{ENDPOINT}/<production_id>",
    parameters=(
        query("wait", "Answer once it has ended, or after so many seconds", type="number"),
        query(
            "after_version",
            "With `wait`: answer as soon as its `version` is higher than this",
            type="integer",
            minimum=0,
            maximum=MAX_VERSION,
        ),
    ),
    answers={200: Production},
)
def retrieve_production(services: Services, tenant_id: str, production_id: str) -> Response:
    """A production, how far it is, and its counts once it has ended."""
    seconds = parsing.wait_seconds(request, services.settings.max_wait_seconds)
    after = parsing.integer(request, "after_version", default=-1, least=0, most=MAX_VERSION)
    shown = _show(services, tenant_id, production_id)
    known = after >= 0
    if (
        seconds
        and not rendering.has_ended(shown["status"])
        and not (known and shown["version"] > after)
    ):
        seen = Seen(after) if known else Seen()
        services.waiter.wait(tenant_id, production_id, seconds, seen=seen)
        shown = _show(services, tenant_id, production_id)
    return json_reply(shown)


@routes.post(
    f"{ENDPOINT}/<production_id>/cancel",
    answers={202: Production, 200: Production},
    errors=(Conflict,),
)
def cancel_production(services: Services, tenant_id: str, production_id: str) -> Response:
    """Asks a production to stop. What is done by then is judged and written to its output. Asking
    again changes nothing."""
    _known(production_id)
    _, _, stopping = cancel_job(services, tenant_id, production_id, kind=KIND)
    status = HTTPStatus.ACCEPTED if stopping else HTTPStatus.OK
    return json_reply(_show(services, tenant_id, production_id), status)


@routes.get(
    f"{ENDPOINT}/<production_id>/output",
    answers={302: "The output is at `Location`, for a while"},
    errors=(StorageUnavailable,),
)
def retrieve_production_output(services: Services, tenant_id: str, production_id: str) -> Response:
    """Where to download the joined output."""
    row = _find(services, tenant_id, production_id)
    with services.autocommit.connect() as connection:
        file = row.output_file_id and get_file(connection, tenant_id, row.output_file_id)
    if not file:
        raise NotFound("the production has no output, or it is gone")
    ending = file.filename[file.filename.rfind(".") :]
    url = services.store.download_url(
        file.storage_key,
        filename=file.filename,
        media_type=MEDIA_TYPES.get(ending, "application/octet-stream"),
        seconds=services.settings.download_url_seconds,
    )
    if url.startswith("/"):
        url = (services.settings.public_url or "").rstrip("/") + url
    return Response(status=HTTPStatus.FOUND, headers={"Location": url})


def _show(services: Services, tenant_id: str, production_id: str) -> Object:
    row = _find(services, tenant_id, production_id)
    with services.autocommit.connect() as connection:
        found = productions_of(connection, tenant_id, [row.id]).get(row.id)
    if found is None:
        raise NotFound(NOTHING)
    return production_rendering.production(row, found)


def _find(services: Services, tenant_id: str, production_id: str) -> JobRow:
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, _known(production_id))
    if found is None or found[0].kind != KIND:
        raise NotFound(NOTHING)
    return found[0]


def _known(production_id: str) -> str:
    if not parsing.is_id(production_id):
        raise NotFound(NOTHING)
    return production_id
