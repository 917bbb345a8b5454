"""Files that requests bring along: announced, stored, and named by a row, in this order.

Whoever is killed in between leaves an announcement, by which the cleaner finds the object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Connection

from api.services import Services
from shared.db.begun_objects import begin_object, forget_objects, name_object
from shared.db.files import FileRow, insert_file
from shared.errors import PressrunError, StorageUnavailable
from shared.lifecycle.quotas import hold_bytes
from shared.storage.base import StoredObject

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NewFile:
    """A checked file that has an id and is not stored yet."""

    file_id: str
    source: Path | bytes
    filename: str
    purpose: str
    media_type: str
    expires_in_seconds: float | None

    def key(self, tenant_id: str) -> str:
        """Where the store has it."""
        return f"t/{tenant_id}/f/{self.file_id}"


def keep_file(
    services: Services,
    tenant_id: str,
    new: NewFile,
    and_then: Callable[[Connection], object] = lambda _: None,
) -> FileRow:
    """Stores the file and makes its row, in one transaction with what ``and_then`` does.

    Raises StorageUnavailable, StorageFull, QuotaExceeded, or what ``and_then`` raises: nothing is
    kept then.
    """
    key = new.key(tenant_id)
    with services.autocommit.connect() as connection:
        begin_object(connection, tenant_id, key)
    try:
        stored = _put(services, key, new)
        with services.transaction() as connection:
            if not name_object(connection, key):
                raise StorageUnavailable("storing the file took too long: send it again")
            row = _insert(connection, tenant_id, new, stored)
            and_then(connection)
    except PressrunError:
        _drop(services, key)
        raise
    return row


def _put(services: Services, key: str, new: NewFile) -> StoredObject:
    if isinstance(new.source, Path):
        return services.store.put_file(key, new.source, media_type=new.media_type)
    return services.store.put_bytes(key, new.source, media_type=new.media_type)


def _insert(connection: Connection, tenant_id: str, new: NewFile, stored: StoredObject) -> FileRow:
    row = insert_file(
        connection,
        file_id=new.file_id,
        tenant_id=tenant_id,
        filename=new.filename,
        purpose=new.purpose,
        bytes=stored.bytes,
        sha256=stored.sha256,
        storage_key=stored.key,
        expires_in_seconds=new.expires_in_seconds,
    )
    hold_bytes(connection, tenant_id)
    return row


def _drop(services: Services, key: str) -> None:
    """Of a request that was refused after all. The cleaner does it later if this fails."""
    try:
        services.store.delete(key)
    except PressrunError as error:
        log.warning("upload_left_behind", key=key, code=error.code)
        return
    with services.autocommit.connect() as connection:
        forget_objects(connection, [key])
