"""Queries on ``deletions``, the records of what was deleted: never changed once complete."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

_COLUMNS = """
       d.id, d.tenant_id, d.kind, d.target, CAST(d.rows AS text) AS rows,
       CAST(d.usage AS text) AS usage, coalesce(d.objects,
           (SELECT count(*) FROM deletion_objects o WHERE o.deletion_id = d.id)) AS objects,
       d.keys_sha256, CAST(extract(epoch FROM d.created_at) AS double precision) AS created_at,
       CAST(extract(epoch FROM d.settles_at) AS double precision) AS settles_at,
       CAST(extract(epoch FROM d.completed_at) AS double precision) AS completed_at
  FROM deletions d
"""
_OF_TENANT = "(CAST(:tenant AS text) IS NULL OR d.tenant_id = :tenant)"

_GET = text(f"SELECT {_COLUMNS} WHERE d.id = :id AND {_OF_TENANT}")
_LIST = text(f"""
SELECT {_COLUMNS}
 WHERE {_OF_TENANT} AND (CAST(:after AS text) IS NULL OR d.id < :after)
 ORDER BY d.id DESC LIMIT :limit
""")
_OBJECTS = text("""
SELECT encode(key_sha256, 'hex') FROM deletion_objects
 WHERE deletion_id = :id AND key_sha256 > CAST(:after AS bytea)
 ORDER BY key_sha256 LIMIT :limit
""")


class DeletionRow(NamedTuple):
    """What was deleted, and how far that is; times in Unix seconds."""

    id: str
    tenant_id: str
    kind: str
    """``job``, ``file``, ``artifact``, ``model`` or ``tenant``."""
    target: str
    rows: dict[str, int]
    """Removed so far, by table."""
    usage: dict[str, Any] | None
    objects: int
    """Removed so far from the store, those included that are being removed."""
    keys_sha256: str | None
    created_at: float
    settles_at: float
    completed_at: float | None


def get_deletion(
    connection: Connection, deletion_id: str, *, tenant_id: str | None
) -> DeletionRow | None:
    """The record, if it is this tenant's; with None, anybody's."""
    row = connection.execute(_GET, {"id": deletion_id, "tenant": tenant_id}).one_or_none()
    return None if row is None else _read(row)


def list_deletions(
    connection: Connection, *, tenant_id: str | None, after: str | None, limit: int
) -> list[DeletionRow]:
    """Newest first, those before the id ``after``; with None as tenant, everybody's."""
    values = {"tenant": tenant_id, "after": after, "limit": limit}
    return [_read(row) for row in connection.execute(_LIST, values)]


def list_key_hashes(
    connection: Connection, deletion_id: str, *, after: bytes, limit: int
) -> list[str]:
    """SHA-256 of the keys that were removed, in hex and in order, those beyond ``after``."""
    values = {"id": deletion_id, "after": after, "limit": limit}
    return list(connection.execute(_OBJECTS, values).scalars())


def _read(row: Any) -> DeletionRow:
    usage = None if row.usage is None else json.loads(row.usage)
    return DeletionRow._make(row)._replace(rows=json.loads(row.rows), usage=usage)
