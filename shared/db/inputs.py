"""Where the pictures and sounds are that rows bring along: a tenant's own files and artifacts."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, text


class InputSource(NamedTuple):
    """A stored object that a body names by ``id``."""

    id: str
    storage_key: str
    bytes: int


_FIND = text("""
SELECT id, storage_key, bytes FROM files
 WHERE tenant_id = :tenant AND id = ANY(:ids) AND deleted_at IS NULL
   AND (expires_at IS NULL OR expires_at > coalesce(
            (SELECT j.created_at FROM jobs j WHERE j.id = :job), clock_timestamp()))
UNION ALL
SELECT id, storage_key, bytes FROM artifacts WHERE tenant_id = :tenant AND id = ANY(:ids)
""")


def find_inputs(
    connection: Connection, tenant_id: str, ids: Collection[str], *, job_id: str | None = None
) -> dict[str, InputSource]:
    """Those of ``ids`` that the tenant has, or had when ``job_id`` was accepted: a file whose time
    is up stays for open jobs. What another tenant has is as unknown as any."""
    values = {"tenant": tenant_id, "ids": sorted(ids), "job": job_id}
    rows = connection.execute(_FIND, values)
    return {row.id: InputSource(*row) for row in rows}
