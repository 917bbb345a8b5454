"""Queries on ``files``. A file whose time is up is gone for its tenant at that moment, even
though upkeep deletes the object later."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.db.retention import TEXT_ENDPOINTS
from shared.states import OPEN_JOB


class FileRow(NamedTuple):
    """A stored file; times in Unix seconds."""

    id: str
    filename: str
    purpose: str
    bytes: int
    storage_key: str
    created_at: float
    expires_at: float | None


_COLUMNS = """id, filename, purpose, bytes, storage_key,
       CAST(extract(epoch FROM created_at) AS double precision) AS created_at,
       CAST(extract(epoch FROM expires_at) AS double precision) AS expires_at"""

_PRESENT = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())"

_INSERT = text(f"""
INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key, expires_at)
VALUES (:id, :tenant, :filename, :purpose, :bytes, :sha256, :key,
        clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision)))
RETURNING {_COLUMNS}
""")

_GET = f"SELECT {_COLUMNS} FROM files WHERE tenant_id = :tenant AND id = :id AND {_PRESENT}"

_OF_JOB = text(f"""
SELECT {_COLUMNS} FROM files WHERE tenant_id = :tenant AND id = :id AND deleted_at IS NULL
""")

_LISTS = {
    order: text(f"""
SELECT {_COLUMNS} FROM files
 WHERE tenant_id = :tenant AND {_PRESENT}
   AND id {comparison} :after
   AND (CAST(:purpose AS text) IS NULL OR purpose = :purpose)
 ORDER BY id {order} LIMIT :limit
""")
    for order, comparison in (("asc", ">"), ("desc", "<"))
}

_OPEN_READERS = text(f"""
SELECT count(*) FROM jobs
 WHERE tenant_id = :tenant AND (input_file_id = :id OR validation_file_id = :id)
   AND state IN ({OPEN_JOB})
""")

_NAMED_BY_OPEN = text(f"""
SELECT EXISTS (SELECT 1 FROM jobs
                WHERE tenant_id = :tenant AND state IN ({OPEN_JOB})
                  AND endpoint NOT IN ({TEXT_ENDPOINTS})
                  AND strpos(CAST(spec AS text), '"' || CAST(:id AS text) || '"') > 0)
""")

_END_LIFE = text("""
UPDATE files SET expires_at = clock_timestamp() WHERE tenant_id = :tenant AND id = :id
""")

_MARK_DELETED = text("""
UPDATE files SET deleted_at = clock_timestamp() WHERE tenant_id = :tenant AND id = :id
""")


def insert_file(
    connection: Connection,
    *,
    file_id: str,
    tenant_id: str,
    filename: str,
    purpose: str,
    bytes: int,
    sha256: str,
    storage_key: str,
    expires_in_seconds: float | None,
) -> FileRow:
    values = {
        "id": file_id,
        "tenant": tenant_id,
        "filename": filename,
        "purpose": purpose,
        "bytes": bytes,
        "sha256": sha256,
        "key": storage_key,
        "seconds": expires_in_seconds,
    }
    return FileRow._make(connection.execute(_INSERT, values).one())


def get_file(connection: Connection, tenant_id: str, file_id: str) -> FileRow | None:
    row = connection.execute(text(_GET), {"tenant": tenant_id, "id": file_id}).one_or_none()
    return None if row is None else FileRow._make(row)


def file_of_job(connection: Connection, tenant_id: str, file_id: str) -> FileRow | None:
    """For workers: a file that an open job reads; it stays beyond its time until the job ends."""
    row = connection.execute(_OF_JOB, {"tenant": tenant_id, "id": file_id}).one_or_none()
    return None if row is None else FileRow._make(row)


def hold_file(connection: Connection, tenant_id: str, file_id: str) -> FileRow | None:
    """``get_file``, keeping the file from being deleted until the transaction ends."""
    held = text(_GET + " FOR KEY SHARE")
    row = connection.execute(held, {"tenant": tenant_id, "id": file_id}).one_or_none()
    return None if row is None else FileRow._make(row)


def hold_file_in_use(connection: Connection, tenant_id: str, file_id: str) -> FileRow | None:
    """``file_of_job`` for what a live schedule names, kept from being deleted until the transaction
    ends."""
    held = text(f"{_OF_JOB.text} FOR KEY SHARE")
    row = connection.execute(held, {"tenant": tenant_id, "id": file_id}).one_or_none()
    return None if row is None else FileRow._make(row)


def lock_file(connection: Connection, tenant_id: str, file_id: str) -> FileRow | None:
    """``get_file``, keeping new jobs from taking the file until the transaction ends."""
    locked = text(_GET + " FOR UPDATE")
    row = connection.execute(locked, {"tenant": tenant_id, "id": file_id}).one_or_none()
    return None if row is None else FileRow._make(row)


def count_open_readers(connection: Connection, tenant_id: str, file_id: str) -> int:
    """How many jobs that have not ended read this file."""
    values = {"tenant": tenant_id, "id": file_id}
    return int(connection.execute(_OPEN_READERS, values).scalar_one())


def is_named_by_open(connection: Connection, tenant_id: str, input_id: str) -> bool:
    """Whether the body of a call that has not ended names this file or artifact."""
    values = {"tenant": tenant_id, "id": input_id}
    return bool(connection.execute(_NAMED_BY_OPEN, values).scalar_one())


def end_life(connection: Connection, tenant_id: str, file_id: str) -> None:
    """The file is gone for its tenant; whoever deletes its object then says ``mark_deleted``, and
    if nobody does, upkeep deletes it as any file whose time is up."""
    connection.execute(_END_LIFE, {"tenant": tenant_id, "id": file_id})


def mark_deleted(connection: Connection, tenant_id: str, file_id: str) -> None:
    connection.execute(_MARK_DELETED, {"tenant": tenant_id, "id": file_id})


def list_files(
    connection: Connection,
    tenant_id: str,
    *,
    after: str | None,
    limit: int,
    order: str,
    purpose: str | None,
) -> list[FileRow]:
    """By id, which is by time; ``order`` is ``asc`` or ``desc``."""
    start = after or {"asc": "", "desc": "file-" + "z" * 26}[order]
    values = {"tenant": tenant_id, "after": start, "limit": limit, "purpose": purpose}
    return [FileRow._make(row) for row in connection.execute(_LISTS[order], values)]
