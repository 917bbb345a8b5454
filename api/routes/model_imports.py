"""Imports of models that tenants bring: submit a ZIP, look, list, cancel."""

from __future__ import annotations

from flask import Response, request
from sqlalchemy import Connection

from api import import_rendering, parsing, rendering
from api.import_requests import read_import, submit_import
from api.rendering import Object
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, MULTIPART, RouteTable, query
from api.services import Services
from api.shapes import ModelImport, ModelImportList
from shared.db.imports import Import, imports_of
from shared.db.jobs import JobRow, get_job, list_jobs
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    ModelNotFound,
    NotFound,
    StorageFull,
    StorageUnavailable,
)
from shared.specs.imports import ENDPOINT, KIND, ImportSpec

IMPORTS = "/v1/models/imports"
NOTHING = "there is no such import"

routes = RouteTable("Model imports", "Models that tenants bring, verified before they are served")


@routes.post(
    ENDPOINT,
    body=ImportSpec,
    body_types=("application/json", MULTIPART),
    parameters=(IDEMPOTENCY_KEY,),
    answers={202: ModelImport},
    errors=(ModelNotFound, NotFound, IdempotencyMismatch, StorageUnavailable, StorageFull),
)
def create_model_import(services: Services, tenant_id: str) -> Response:
    """Imports a model: a ZIP of its folder, as a file's id or in the form's `file`. Only
    safetensors and known settings are taken, and no code of it is ever run."""
    with read_import(services, tenant_id) as asked:
        import_id = submit_import(services, tenant_id, asked)
    shown = _show(services, tenant_id, import_id)
    return json_reply(shown, 202, {"Location": f"{IMPORTS}/{import_id}"})


@routes.get(IMPORTS, parameters=(LIMIT, AFTER), answers={200: ModelImportList})
def list_model_imports(services: Services, tenant_id: str) -> Response:
    """Imports, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = list_jobs(connection, tenant_id, kinds=[KIND], after=after, limit=limit + 1)
        found = imports_of(connection, tenant_id, [row.id for row in rows])
    shown = [import_rendering.model_import(row, found[row.id]) for row in rows if row.id in found]
    return json_reply(rendering.page(shown, limit))


@routes.get(
    f"{IMPORTS}/<import_id>",
    parameters=(
        query("wait", "Answer once it has ended, or after so many seconds", type="number"),
    ),
    answers={200: ModelImport},
)
def retrieve_model_import(services: Services, tenant_id: str, import_id: str) -> Response:
    """An import: how far it is, the model that it became, or why it was refused."""
    seconds = parsing.wait_seconds(request, services.settings.max_wait_seconds)
    if seconds:
        with services.autocommit.connect() as connection:
            row, _ = _find(connection, tenant_id, import_id)
        if not rendering.has_ended(row.state):
            services.waiter.wait(tenant_id, row.id, seconds)
    return json_reply(_show(services, tenant_id, import_id))


@routes.post(f"{IMPORTS}/<import_id>/cancel", answers={200: ModelImport}, errors=(Conflict,))
def cancel_model_import(services: Services, tenant_id: str, import_id: str) -> Response:
    """Asks an import to stop. Asking again changes nothing."""
    if not parsing.is_id(import_id):
        raise NotFound(NOTHING)
    cancel_job(services, tenant_id, import_id, kind=KIND)
    return json_reply(_show(services, tenant_id, import_id))


def _find(connection: Connection, tenant_id: str, import_id: str) -> tuple[JobRow, Import]:
    """Raises NotFound when the tenant has no such import."""
    job = get_job(connection, tenant_id, import_id) if parsing.is_id(import_id) else None
    found = imports_of(connection, tenant_id, [import_id]).get(import_id) if job else None
    if job is None or found is None:
        raise NotFound(NOTHING)
    return job[0], found


def _show(services: Services, tenant_id: str, import_id: str) -> Object:
    with services.autocommit.connect() as connection:
        return import_rendering.model_import(*_find(connection, tenant_id, import_id))
