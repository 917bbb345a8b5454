"""From a body or a form to an import: checked against the tenant's files and models, and queued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flask import request
from sqlalchemy import Connection

from api import parsing
from api.idempotency import Once, once_for, once_of, sha256_of
from api.media_forms import form_body
from api.multipart import FilePart, Form, read_form
from api.new_files import NewFile, keep_file
from api.services import Services
from api.storage_room import within_room
from shared import lifecycle
from shared.db.aliases import hold_named
from shared.db.files import hold_file
from shared.errors import InvalidRequest, ModelNotFound, NotFound
from shared.ids import new_file_id, new_import_id
from shared.pools import UPKEEP
from shared.specs.imports import ENDPOINT, ImportSpec

SUBMIT_ROUTE = f"POST {ENDPOINT}"
PURPOSE = "model"
PURPOSES = frozenset({PURPOSE, "assistants"})
FILE_SECONDS = 7 * 86_400
"""A ZIP that came with the call itself is kept so long: the model has files of its own."""
MEDIA_TYPE = "application/zip"
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A call that was read; nothing of it is kept yet."""

    document: dict[str, Any]
    once: Once
    upload: FilePart | None = None
    """The ZIP, where it came with the call; on disk until the block that read it ends."""


@contextmanager
def read_import(services: Services, tenant_id: str) -> Iterator[ImportRequest]:
    """The call's body. Raises UnsupportedMediaType, PayloadTooLarge, InvalidRequest, or what
    receiving an upload does."""
    settings, key = services.settings, parsing.idempotency_key(request)
    if request.mimetype != "multipart/form-data":
        document = parsing.json_body(request, max_bytes=settings.max_body_bytes)
        if not isinstance(document, dict):
            raise InvalidRequest("the body must be a JSON object")
        yield ImportRequest(document, once_for(SUBMIT_ROUTE, key, document))
        return
    with (
        within_room(services, tenant_id, settings.max_file_bytes) as most,
        read_form(request, scratch_dir=settings.scratch_dir, max_bytes=most) as form,
    ):
        yield _from_form(form, key)


def _from_form(form: Form, key: str | None) -> ImportRequest:
    document = form_body(ImportSpec, form.fields)
    if len(form.files) != 1 or form.files[0].name != "file" or "file" in document:
        raise InvalidRequest("'file' is required, once, and is the only file", param="file")
    upload = form.files[0]
    once = once_of(
        SUBMIT_ROUTE,
        key,
        lambda: parsing.fingerprint({"fields": document, "sha256": sha256_of(upload.path)}),
    )
    return ImportRequest(document, once, upload)


def submit_import(services: Services, tenant_id: str, asked: ImportRequest) -> str:
    """Queues the import, unless its key made one already; returns the job's id.

    Raises IdempotencyMismatch, InvalidRequest, ModelNotFound, NotFound for a file, and as the store
    does.
    """
    first = asked.once.first_use(services, tenant_id)
    if first is not None:
        return first
    file_id = new_file_id()
    document = asked.document if asked.upload is None else asked.document | {"file": file_id}
    spec = parsing.validate(ImportSpec, document)
    _check_text(spec)
    job_id = new_import_id()

    def queue(connection: Connection) -> None:
        _queue(connection, services, tenant_id, job_id=job_id, spec=spec, once=asked.once)

    if asked.upload is None:
        with services.transaction() as connection:
            queue(connection)
    else:
        keep_file(services, tenant_id, _as_file(file_id, asked.upload), queue)
    services.bell.ring(UPKEEP)
    return job_id


def _as_file(file_id: str, upload: FilePart) -> NewFile:
    return NewFile(file_id, upload.path, upload.filename, PURPOSE, MEDIA_TYPE, FILE_SECONDS)


def _check_text(spec: ImportSpec) -> None:
    """Postgres takes no NUL."""
    if any("\0" in text for pair in (spec.metadata or {}).items() for text in pair):
        raise InvalidRequest("'metadata' must be text", param="metadata")


def _queue(
    connection: Connection,
    services: Services,
    tenant_id: str,
    *,
    job_id: str,
    spec: ImportSpec,
    once: Once,
) -> None:
    file = hold_file(connection, tenant_id, spec.file) if parsing.is_id(spec.file) else None
    if file is None:
        raise NotFound("there is no such file", param="file")
    if file.purpose not in PURPOSES:
        known = " or ".join(sorted(f"'{purpose}'" for purpose in PURPOSES))
        raise InvalidRequest(f"the file's purpose is '{file.purpose}', not {known}", param="file")
    base = None
    if spec.base_model is not None:
        known_name = spec.base_model.isprintable()
        base = hold_named(connection, tenant_id, spec.base_model) if known_name else None
        if base is None:
            raise ModelNotFound("there is no such model", param="base_model")
        spec = spec.model_copy(update={"base_model": base.id})
    lifecycle.submit_import(
        connection,
        job_id=job_id,
        tenant_id=tenant_id,
        file_id=spec.file,
        base_model=spec.base_model,
        spec=spec.model_dump_json(exclude_unset=True),
        metadata=spec.metadata,
        window=services.settings.ready_window,
        idempotency=once.for_submit(),
    )
