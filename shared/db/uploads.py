"""Queries on ``uploads`` and ``upload_parts``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.states import OPEN_JOB

LIMIT = 100
ZOMBIE_GRACE = "1 hour"
"""What an upload has stored stays this long after its end, for late writers to stop."""


class UploadRow(NamedTuple):
    """A file that comes in parts; times in Unix seconds."""

    id: str
    filename: str
    purpose: str
    bytes: int
    file_seconds: int | None
    """Life of the file that it becomes."""
    created_at: float
    expires_at: float
    join_id: str | None
    join_sha256: str | None
    """Of what was asked of that job."""
    file_id: str | None
    status: str
    """``pending``, ``completed``, ``cancelled`` or ``expired``."""
    joining: bool
    """A job that joins its parts is open."""


class PartRow(NamedTuple):
    """A part that has arrived."""

    id: str
    bytes: int
    sha256: str
    storage_key: str


_JOINING = f"""EXISTS (SELECT 1 FROM jobs j WHERE j.id = u.join_id AND j.state IN ({OPEN_JOB}))"""

_GET = f"""
SELECT u.id, u.filename, u.purpose, u.bytes, u.file_seconds,
       CAST(extract(epoch FROM u.created_at) AS double precision),
       CAST(extract(epoch FROM u.expires_at) AS double precision),
       u.join_id, u.join_sha256, u.file_id,
       CASE WHEN u.file_id IS NOT NULL THEN 'completed'
            WHEN u.cancelled_at IS NOT NULL THEN 'cancelled'
            WHEN u.ended_at IS NOT NULL THEN 'expired'
            WHEN u.expires_at <= clock_timestamp() AND NOT {_JOINING} THEN 'expired'
            ELSE 'pending' END,
       {_JOINING}
  FROM uploads u WHERE u.id = :id AND u.tenant_id = :tenant
"""
_LOCK = f"{_GET} FOR UPDATE OF u"

_STORED = text("""
SELECT count(*) AS parts, CAST(coalesce(sum(bytes), 0) AS bigint) AS bytes
  FROM upload_parts WHERE upload_id = :upload
""")

_PARTS = text("""
SELECT p.id, p.bytes, p.sha256, p.storage_key FROM upload_parts p
  JOIN uploads u ON u.id = p.upload_id AND u.tenant_id = :tenant
 WHERE p.upload_id = :upload AND p.id = ANY(:ids)
""")

_OVER = text(f"""
SELECT u.tenant_id, u.id, f.storage_key
  FROM uploads u LEFT JOIN files f ON f.id = u.file_id AND f.deleted_at IS NULL
 WHERE u.cleaned_at IS NULL AND NOT {_JOINING}
   AND coalesce(u.ended_at, u.expires_at) < clock_timestamp() - CAST(:grace AS interval)
 ORDER BY u.expires_at LIMIT {LIMIT}
""")


def get_upload(connection: Connection, tenant_id: str, upload_id: str) -> UploadRow | None:
    row = connection.execute(text(_GET), {"tenant": tenant_id, "id": upload_id}).one_or_none()
    return None if row is None else UploadRow._make(row)


def lock_upload(connection: Connection, tenant_id: str, upload_id: str) -> UploadRow | None:
    """``get_upload``, keeping it as it is until the transaction ends."""
    row = connection.execute(text(_LOCK), {"tenant": tenant_id, "id": upload_id}).one_or_none()
    if row is None:
        return None
    # What was read before the lock was waited for may be over.
    row = connection.execute(text(_GET), {"tenant": tenant_id, "id": upload_id}).one()
    return UploadRow._make(row)


def stored_of(connection: Connection, upload_id: str) -> tuple[int, int]:
    """How many parts the upload has, and their bytes."""
    row = connection.execute(_STORED, {"upload": upload_id}).one()
    return row.parts, row.bytes


def parts_of(
    connection: Connection, tenant_id: str, upload_id: str, ids: Sequence[str]
) -> dict[str, PartRow]:
    """Those of the parts ``ids`` that the upload has, by id."""
    values = {"tenant": tenant_id, "upload": upload_id, "ids": list(ids)}
    return {row.id: PartRow._make(row) for row in connection.execute(_PARTS, values)}


class SpentUpload(NamedTuple):
    """An upload of which nothing is needed any more but its file."""

    tenant_id: str
    id: str
    file_key: str | None


def spent_uploads(connection: Connection) -> list[SpentUpload]:
    """For the cleaner: those that ended, or expired, some time ago."""
    rows = connection.execute(_OVER, {"grace": ZOMBIE_GRACE})
    return [SpentUpload._make(row) for row in rows]


def forget_parts(connection: Connection, upload_id: str) -> None:
    """The store has nothing of the upload left but its file."""
    connection.execute(text("DELETE FROM upload_parts WHERE upload_id = :id"), {"id": upload_id})
    connection.execute(
        text("""
        UPDATE uploads SET cleaned_at = clock_timestamp(),
               ended_at = coalesce(ended_at, clock_timestamp()) WHERE id = :id
        """),
        {"id": upload_id},
    )
