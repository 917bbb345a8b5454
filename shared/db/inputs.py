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


# A file whose time was up while its job waited is there still: the cleaner leaves it to open jobs.
_FIND = text("""
SELECT id, storage_key, bytes FROM files
 WHERE tenant_id = :tenant AND id = ANY(:ids) AND deleted_at IS NULL
UNION ALL
SELECT id, storage_key, bytes FROM artifacts WHERE tenant_id = :tenant AND id = ANY(:ids)
""")


def find_inputs(
    connection: Connection, tenant_id: str, ids: Collection[str]
) -> dict[str, InputSource]:
    """Those of ``ids`` that the tenant has; what another tenant has is as unknown as any."""
    rows = connection.execute(_FIND, {"tenant": tenant_id, "ids": sorted(ids)})
    return {row.id: InputSource(*row) for row in rows}
