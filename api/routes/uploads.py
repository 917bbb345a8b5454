"""Uploads: files too large, or connections too poor, for one request."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import structlog
from flask import Response, request
from sqlalchemy import Connection

from api import parsing, rendering
from api.errors import StillRunning
from api.idempotency import Once, once_for, once_of, sha256_of
from api.limits import BATCH_FILE_SECONDS
from api.rendering import Object
from api.routes.replies import json_reply
from api.routing import IDEMPOTENCY_KEY, MULTIPART, RouteTable
from api.services import Services
from api.shapes import Upload, UploadPart
from api.storage_room import require_room, within_room
from api.upload_requests import (
    CompleteRequest,
    PartForm,
    UploadRequest,
    read_complete_request,
    read_part,
    read_upload_request,
)
from shared import lifecycle
from shared.db.files import get_file
from shared.db.jobs import get_job
from shared.db.uploads import UploadRow, get_upload, lock_upload, parts_of, stored_of
from shared.errors import (
    ChecksumMismatch,
    Conflict,
    InvalidRequest,
    NotFound,
    PressrunError,
    StorageFull,
    StorageUnavailable,
    TooManyRequests,
)
from shared.ids import new_join_id, new_part_id, new_upload_id
from shared.lifecycle.quotas import hold_bytes
from shared.pools import UPKEEP
from shared.specs.uploads import ENDPOINT, MAX_PARTS, PART_BYTES, JoinSpec
from shared.states import JobState
from shared.storage.base import StoredObject
from shared.storage.keys import parts_prefix

routes = RouteTable("Uploads", "Files in parts")

NOTHING = "there is no such upload"
PART_TYPE = "application/octet-stream"
JOIN_FAILED = "the parts could not be joined; complete the upload again"

log = structlog.get_logger()


@routes.post(ENDPOINT, body=UploadRequest, parameters=(IDEMPOTENCY_KEY,), answers={200: Upload})
def create_upload(services: Services, tenant_id: str) -> Response:
    """Begins a file that comes in parts. It expires after an hour, unless it is completed."""
    settings = services.settings
    asked = read_upload_request(
        request, body_bytes=settings.max_body_bytes, most_bytes=settings.max_upload_bytes
    )
    key = parsing.idempotency_key(request)
    once = once_for(f"POST {ENDPOINT}", key, asked.model_dump(mode="json"))
    first = once.first_use(services, tenant_id)
    if first is not None:
        return json_reply(_show(services, tenant_id, first))
    life = None if asked.expires_after is None else asked.expires_after.seconds
    if life is None and asked.purpose == "batch":
        life = BATCH_FILE_SECONDS
    require_room(services, tenant_id, asked.bytes)
    upload_id = new_upload_id()
    with services.transaction() as connection:
        lifecycle.create_upload(
            connection,
            upload_id=upload_id,
            tenant_id=tenant_id,
            filename=asked.filename,
            purpose=asked.purpose,
            bytes=asked.bytes,
            file_seconds=life,
        )
        once.made(connection, tenant_id, upload_id)
    return json_reply(_show(services, tenant_id, upload_id))


@routes.post(
    f"{ENDPOINT}/<upload_id>/parts",
    body=PartForm,
    body_types=(MULTIPART,),
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: UploadPart},
    errors=(Conflict, StorageUnavailable, StorageFull),
)
def add_upload_part(services: Services, tenant_id: str, upload_id: str) -> Response:
    """Adds a part of up to 64 MiB. Parts may come in any order, and several at a time."""
    with services.autocommit.connect() as connection:
        upload = _found(get_upload(connection, tenant_id, _id(upload_id)))
        _require_open(upload)
        _require_room(connection, upload, 0)
    key, route = parsing.idempotency_key(request), f"POST {ENDPOINT}/{upload_id}/parts"
    with (
        within_room(services, tenant_id, PART_BYTES) as most,
        read_part(request, scratch_dir=services.settings.scratch_dir, max_bytes=most) as part,
    ):
        path = part.path
        once = once_of(route, key, lambda: parsing.fingerprint(sha256_of(path)))
        part_id = once.first_use(services, tenant_id)
        if part_id is None:
            part_id = new_part_id()
            _store_part(services, tenant_id, upload_id, part_id, path=path, once=once)
    shown = {"id": part_id, "object": "upload.part", "upload_id": upload_id}
    return json_reply(shown | {"created_at": rendering.created_at_of(part_id, time.time())})


def _store_part(
    services: Services, tenant_id: str, upload_id: str, part_id: str, *, path: Path, once: Once
) -> None:
    key = parts_prefix(tenant_id, upload_id) + part_id
    stored = services.store.put_file(key, path, media_type=PART_TYPE)
    _keep_part(services, tenant_id, upload_id, part_id, stored=stored, once=once)


def _keep_part(
    services: Services,
    tenant_id: str,
    upload_id: str,
    part_id: str,
    *,
    stored: StoredObject,
    once: Once,
) -> None:
    """Raises NotFound, Conflict or InvalidRequest; the object is removed then."""
    try:
        with services.transaction() as connection:
            upload = _found(lock_upload(connection, tenant_id, upload_id))
            _require_open(upload)
            _require_room(connection, upload, stored.bytes)
            lifecycle.add_part(
                connection,
                part_id=part_id,
                upload_id=upload_id,
                bytes=stored.bytes,
                sha256=stored.sha256,
                key=stored.key,
            )
            hold_bytes(connection, tenant_id)
            once.made(connection, tenant_id, part_id)
    except PressrunError:
        services.store.delete(stored.key)
        raise


def _require_room(connection: Connection, upload: UploadRow, coming: int) -> None:
    """Parts that come again, as their answers were lost, are allowed for; no more is stored."""
    parts, held = stored_of(connection, upload.id)
    if parts >= MAX_PARTS:
        raise InvalidRequest(f"an upload has at most {MAX_PARTS} parts", param="data")
    if held + coming > 2 * upload.bytes + PART_BYTES:
        raise InvalidRequest("the parts are more than twice the upload's 'bytes'", param="data")


@routes.post(
    f"{ENDPOINT}/<upload_id>/complete",
    body=CompleteRequest,
    answers={200: Upload},
    errors=(Conflict, ChecksumMismatch, TooManyRequests, StorageUnavailable, StillRunning),
)
def complete_upload(services: Services, tenant_id: str, upload_id: str) -> Response:
    """Joins the parts into a file and answers when that is done. Asked the same again, it goes on
    waiting, or answers with what was made; whatever is refused leaves the upload open."""
    asked = read_complete_request(request, body_bytes=services.settings.max_body_bytes)
    with services.waiter.place(tenant_id) as sleep:
        join_id = _begin(services, tenant_id, _id(upload_id), asked)
        if join_id is not None:
            services.bell.ring(UPKEEP)
            sleep(join_id, services.settings.direct_seconds)
            _require_success(services, tenant_id, join_id)
    return json_reply(_show(services, tenant_id, upload_id))


def _begin(
    services: Services, tenant_id: str, upload_id: str, asked: CompleteRequest
) -> str | None:
    """The job that joins the parts, this call's or an earlier one's; None when all is done."""
    said = json.dumps([asked.part_ids, asked.md5])
    sha256 = hashlib.sha256(said.encode()).hexdigest()
    with services.transaction() as connection:
        upload = _found(lock_upload(connection, tenant_id, upload_id))
        if upload.status == "completed" and upload.join_sha256 == sha256:
            return None
        if upload.joining and upload.join_sha256 == sha256:
            return upload.join_id
        _require_open(upload)
        _require_whole(connection, tenant_id, upload, asked)
        job_id = new_join_id()
        lifecycle.submit_join(
            connection,
            job_id=job_id,
            tenant_id=tenant_id,
            spec=JoinSpec(upload_id, asked.part_ids, asked.md5),
            sha256=sha256,
            window=services.settings.ready_window,
        )
        return job_id


def _require_whole(
    connection: Connection, tenant_id: str, upload: UploadRow, asked: CompleteRequest
) -> None:
    parts = parts_of(connection, tenant_id, upload.id, asked.part_ids)
    absent = next((part_id for part_id in asked.part_ids if part_id not in parts), None)
    if absent is not None:
        raise InvalidRequest(f"the upload has no part {absent!r}", param="part_ids")
    total = sum(part.bytes for part in parts.values())
    if total != upload.bytes:
        raise InvalidRequest(
            f"the parts have {total} bytes, and the upload was to have {upload.bytes}",
            param="part_ids",
        )


def _require_success(services: Services, tenant_id: str, join_id: str) -> None:
    """Raises what the caller of a join that has not succeeded is to be told."""
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, join_id)
    if found is None:
        raise StorageUnavailable(JOIN_FAILED)
    row = found[0]
    if row.state == JobState.SUCCEEDED:
        return
    if row.error_code == ChecksumMismatch.code:
        raise ChecksumMismatch(row.error_message or "", param=row.error_param)
    if rendering.has_ended(row.state):
        raise StorageUnavailable(JOIN_FAILED)
    raise StillRunning("the parts are still being joined: complete it again to wait on")


@routes.get(f"{ENDPOINT}/<upload_id>", answers={200: Upload})
def retrieve_upload(services: Services, tenant_id: str, upload_id: str) -> Response:
    """An upload, and the file that it became."""
    return json_reply(_show(services, tenant_id, _id(upload_id)))


@routes.post(f"{ENDPOINT}/<upload_id>/cancel", answers={200: Upload}, errors=(Conflict,))
def cancel_upload(services: Services, tenant_id: str, upload_id: str) -> Response:
    """Gives an upload up; its parts are removed. Asking again changes nothing."""
    with services.transaction() as connection:
        upload = _found(lock_upload(connection, tenant_id, _id(upload_id)))
        if upload.status != "cancelled":
            _require_open(upload)
            lifecycle.cancel_upload(connection, tenant_id=tenant_id, upload_id=upload_id)
    if upload.status != "cancelled":
        try:
            services.store.delete_prefix(parts_prefix(tenant_id, upload_id))
        except (StorageUnavailable, StorageFull) as error:
            log.warning("delete_postponed", upload=upload_id, code=error.code)
    return json_reply(_show(services, tenant_id, upload_id))


def _id(upload_id: str) -> str:
    return parsing.one_id(upload_id, "upload")


def _found(upload: UploadRow | None) -> UploadRow:
    if upload is None:
        raise NotFound(NOTHING)
    return upload


def _require_open(upload: UploadRow) -> None:
    if upload.joining:
        raise Conflict("the upload is being completed")
    if upload.status != "pending":
        raise Conflict(f"the upload is {upload.status}")


def _show(services: Services, tenant_id: str, upload_id: str) -> Object:
    with services.autocommit.connect() as connection:
        upload = _found(get_upload(connection, tenant_id, upload_id))
        file = upload.file_id and get_file(connection, tenant_id, upload.file_id)
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": rendering.created_at_of(upload.id, upload.created_at),
        "expires_at": rendering.expires_at_of(upload.id, upload.created_at, upload.expires_at),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "file": rendering.file(file) if file else None,
    }
