"""Deleting for good: a record of each, and the proof that it is complete."""

from __future__ import annotations

import re

import structlog
from flask import Response, request

from api import parsing, rendering, retention_rendering
from api.routes import admin, artifacts, job_progress
from api.routes.replies import json_reply, own_job_id
from api.routing import AFTER, LIMIT, RouteTable, query
from api.services import Services
from api.shapes import DeletedObjectList, Deletion, DeletionList
from shared.db import deletions
from shared.errors import Conflict, InvalidRequest, NotFound, StorageFull, StorageUnavailable
from shared.lifecycle import deletion as lifecycle
from shared.lifecycle.deletion import Deleted

routes = RouteTable("Deletions", "What was deleted, and the proof of it")

HEADER = "Pressrun-Deletion"
"""Where answers to deletions of other shapes say what their record is called."""
MOST_HASHES = 10_000
_HASHES = (
    query(
        "limit", "Most items on a page", type="integer", minimum=1, maximum=MOST_HASHES, default=100
    ),
    query("after", "Start after this hash", type="string", pattern="^[0-9a-f]{64}$"),
)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)

log = structlog.get_logger()


# An address is described in one table, whatever is done there.


@job_progress.routes.delete("/v1/jobs/<job_id>", answers={202: Deletion}, errors=(Conflict,))
def delete_any_job(services: Services, tenant_id: str, job_id: str) -> Response:
    """Deletes a job that has ended and all that it made and said, or what the archive has of it. An
    open one is refused: cancel it first. Its input file stays, and so does what was consumed."""
    job_id = own_job_id(services, tenant_id, job_id)
    with services.transaction() as connection:
        begun = lifecycle.request_job_deletion(
            connection,
            tenant_id=tenant_id,
            job_id=job_id,
            grace_seconds=services.settings.deletion_grace_seconds,
        )
    return _accepted(services, begun, tenant_id)


@artifacts.routes.delete("/v1/artifacts/<artifact_id>", answers={202: Deletion}, errors=(Conflict,))
def delete_artifact(services: Services, tenant_id: str, artifact_id: str) -> Response:
    """Deletes an artifact and what illustrates it, once its job has ended and no open one names
    it."""
    parsing.one_id(artifact_id, "artifact")
    with services.transaction() as connection:
        begun = lifecycle.request_artifact_deletion(
            connection,
            tenant_id=tenant_id,
            artifact_id=artifact_id,
            grace_seconds=services.settings.deletion_grace_seconds,
        )
    return _accepted(services, begun, tenant_id)


@routes.get("/v1/deletions", parameters=(LIMIT, AFTER), answers={200: DeletionList})
def list_own_deletions(services: Services, tenant_id: str) -> Response:
    """What this tenant has deleted, newest first."""
    return _list(services, tenant_id)


@routes.get("/v1/deletions/<deletion_id>", answers={200: Deletion})
def retrieve_own_deletion(services: Services, tenant_id: str, deletion_id: str) -> Response:
    """The record of a deletion: `pending`, then `complete` and the proof."""
    return json_reply(_find(services, deletion_id, tenant_id))


@routes.get(
    "/v1/deletions/<deletion_id>/objects",
    parameters=_HASHES,
    answers={200: DeletedObjectList},
)
def list_own_deleted_objects(services: Services, tenant_id: str, deletion_id: str) -> Response:
    """The SHA-256 of the key of every object that was removed."""
    return _hashes(services, deletion_id, tenant_id)


@admin.routes.delete("/v1/admin/tenants/<tenant_id>", access="admin", answers={202: Deletion})
def delete_tenant(services: Services, tenant_id: str) -> Response:
    """Erases a tenant and everything of it: its keys end at once, its jobs are cancelled, and the
    record is what is left. Again, it answers the same record for as long as that is pending."""
    parsing.one_id(tenant_id, "tenant")
    with services.transaction() as connection:
        begun = lifecycle.request_tenant_deletion(connection, tenant_id=tenant_id)
    if begun is None:
        raise NotFound("there is no such tenant")
    services.auth.forget()
    return _accepted(services, begun, None)


@routes.get(
    "/v1/admin/deletions",
    access="admin",
    parameters=(LIMIT, AFTER),
    answers={200: DeletionList},
)
def list_all_deletions(services: Services) -> Response:
    """What any tenant has deleted, and tenants that were erased, newest first."""
    return _list(services, None)


@routes.get("/v1/admin/deletions/<deletion_id>", access="admin", answers={200: Deletion})
def retrieve_deletion(services: Services, deletion_id: str) -> Response:
    """The record of any deletion; that of a tenant's is to be had here alone."""
    return json_reply(_find(services, deletion_id, None))


@routes.get(
    "/v1/admin/deletions/<deletion_id>/objects",
    access="admin",
    parameters=_HASHES,
    answers={200: DeletedObjectList},
)
def list_deleted_objects(services: Services, deletion_id: str) -> Response:
    """The SHA-256 of the key of every object that a deletion removed."""
    return _hashes(services, deletion_id, None)


def with_record(reply: Response, begun: Deleted) -> Response:
    """An answer of another shape that says what the record is called."""
    reply.headers[HEADER] = begun.id
    return reply


def remove_now(services: Services, begun: Deleted) -> None:
    """Removes the objects of a deletion at once; what the store keeps, upkeep removes."""
    try:
        services.store.delete_keys(begun.keys)
    except (StorageUnavailable, StorageFull) as error:
        log.warning("delete_postponed", deletion=begun.id, code=error.code)


def _accepted(services: Services, begun: Deleted, tenant_id: str | None) -> Response:
    shown = _find(services, begun.id, tenant_id)
    where = "/v1/admin/deletions" if tenant_id is None else "/v1/deletions"
    return json_reply(shown, 202, {"Location": f"{where}/{begun.id}", HEADER: begun.id})


def _list(services: Services, tenant_id: str | None) -> Response:
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = deletions.list_deletions(
            connection, tenant_id=tenant_id, after=after, limit=limit + 1
        )
    return json_reply(rendering.page([retention_rendering.deletion(row) for row in rows], limit))


def _hashes(services: Services, deletion_id: str, tenant_id: str | None) -> Response:
    limit = parsing.integer(request, "limit", default=100, least=1, most=MOST_HASHES)
    after = request.args.get("after", "")
    if after and not _HASH.fullmatch(after):
        raise InvalidRequest("'after' must be the hash of the last item seen", param="after")
    _find(services, deletion_id, tenant_id)
    with services.autocommit.connect() as connection:
        hashes = deletions.list_key_hashes(
            connection, deletion_id, after=bytes.fromhex(after), limit=limit + 1
        )
    shown = [retention_rendering.deleted_object(one) for one in hashes]
    return json_reply(rendering.page(shown, limit))


def _find(services: Services, deletion_id: str, tenant_id: str | None) -> rendering.Object:
    parsing.one_id(deletion_id, "deletion")
    with services.autocommit.connect() as connection:
        row = deletions.get_deletion(connection, deletion_id, tenant_id=tenant_id)
    if row is None:
        raise NotFound("there is no such deletion")
    return retention_rendering.deletion(row)
