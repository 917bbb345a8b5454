"""Files: the inputs and outputs of batches, as OpenAI's files."""

from __future__ import annotations

import structlog
from flask import Response, request

from api import parsing, rendering
from api.idempotency import Once, once_of
from api.limits import BATCH_FILE_SECONDS
from api.new_files import NewFile, keep_file
from api.requests import FileForm
from api.routes.deletions import remove_now, with_record
from api.routes.replies import json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, MULTIPART, RouteTable, query
from api.services import Services
from api.shapes import Deleted, File, FileList
from api.storage_room import within_room
from api.uploads import Upload, read_upload
from shared.db import files
from shared.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    StorageFull,
    StorageUnavailable,
)
from shared.ids import new_file_id
from shared.lifecycle.deletion import request_file_deletion

routes = RouteTable("Files", "Inputs and outputs of batches")

SUBMIT_ROUTE = "POST /v1/files"
MOST_FILES = 10_000
ORDERS = ("asc", "desc")

log = structlog.get_logger()


@routes.post(
    "/v1/files",
    body=FileForm,
    body_types=(MULTIPART,),
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: File},
    errors=(StorageUnavailable, StorageFull),
)
def create_file(services: Services, tenant_id: str) -> Response:
    """Uploads a file. Batch inputs live for 30 days unless `expires_after` says otherwise."""
    settings, key = services.settings, parsing.idempotency_key(request)
    with (
        within_room(services, tenant_id, settings.max_file_bytes) as most,
        read_upload(request, scratch_dir=settings.scratch_dir, max_bytes=most) as upload,
    ):
        once = once_of(SUBMIT_ROUTE, key, upload.fingerprint)
        first = once.first_use(services, tenant_id)
        if first is not None:
            return json_reply(rendering.file(_get(services, tenant_id, first)))
        row = _store(services, tenant_id, upload, once)
    return json_reply(rendering.file(row))


def _store(services: Services, tenant_id: str, upload: Upload, once: Once) -> files.FileRow:
    life = upload.expires_in_seconds
    if life is None and upload.purpose == "batch":
        life = BATCH_FILE_SECONDS
    new = NewFile(
        new_file_id(), upload.path, upload.filename, upload.purpose, upload.media_type, life
    )
    return keep_file(
        services,
        tenant_id,
        new,
        lambda connection: once.made(connection, tenant_id, new.file_id),
    )


@routes.get(
    "/v1/files",
    parameters=(
        query(
            "limit",
            "Most files on a page",
            type="integer",
            minimum=1,
            maximum=MOST_FILES,
            default=MOST_FILES,
        ),
        AFTER,
        query("order", "By time of creation", type="string", enum=[*ORDERS], default="desc"),
        query("purpose", "Only files of this purpose", type="string"),
    ),
    answers={200: FileList},
)
def list_all_files(services: Services, tenant_id: str) -> Response:
    """Files that are neither deleted nor expired."""
    limit = parsing.integer(request, "limit", default=MOST_FILES, least=1, most=MOST_FILES)
    purpose = request.args.get("purpose")
    if purpose is not None and not (purpose.isprintable() and purpose.isascii()):
        raise InvalidRequest("'purpose' must be plain text", param="purpose")
    with services.autocommit.connect() as connection:
        rows = files.list_files(
            connection,
            tenant_id,
            after=parsing.cursor(request),
            limit=limit + 1,
            order=parsing.choice(request, "order", ORDERS) or "desc",
            purpose=purpose,
        )
    return json_reply(rendering.page([rendering.file(row) for row in rows], limit))


@routes.get("/v1/files/<file_id>", answers={200: File})
def retrieve_file(services: Services, tenant_id: str, file_id: str) -> Response:
    """A file's description."""
    return json_reply(rendering.file(_get(services, tenant_id, file_id)))


@routes.delete("/v1/files/<file_id>", answers={200: Deleted}, errors=(Conflict,))
def delete_file(services: Services, tenant_id: str, file_id: str) -> Response:
    """Deletes a file and its content, unless a job that has not ended reads it. `Pressrun-Deletion`
    is the record of it."""
    parsing.one_id(file_id, "file")
    with services.transaction() as connection:
        begun = request_file_deletion(connection, tenant_id=tenant_id, file_id=file_id)
    remove_now(services, begun)
    return with_record(json_reply({"id": file_id, "object": "file", "deleted": True}), begun)


@routes.get(
    "/v1/files/<file_id>/content",
    answers={302: "The content is at `Location`, for a while"},
    errors=(StorageUnavailable,),
)
def retrieve_file_content(services: Services, tenant_id: str, file_id: str) -> Response:
    """Where to download the file."""
    row = _get(services, tenant_id, file_id)
    is_lines = row.filename.endswith(".jsonl") or row.purpose in {"batch", "batch_output"}
    url = services.store.download_url(
        row.storage_key,
        filename=row.filename,
        media_type="application/jsonl" if is_lines else "application/octet-stream",
        seconds=services.settings.download_url_seconds,
    )
    if url.startswith("/"):
        url = (services.settings.public_url or "").rstrip("/") + url
    return Response(status=302, headers={"Location": url})


def _get(services: Services, tenant_id: str, file_id: str) -> files.FileRow:
    parsing.one_id(file_id, "file")
    with services.autocommit.connect() as connection:
        row = files.get_file(connection, tenant_id, file_id)
    if row is None:
        raise NotFound("there is no such file")
    return row
