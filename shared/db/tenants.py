"""Queries on ``tenants``."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text


class TenantRow(NamedTuple):
    """A tenant; ``created_at`` in Unix seconds."""

    id: str
    name: str
    created_at: float
    disabled: bool


_COLUMNS = """id, name, CAST(extract(epoch FROM created_at) AS double precision) AS created_at,
       disabled_at IS NOT NULL AS disabled"""

_INSERT = text(f"INSERT INTO tenants (id, name) VALUES (:tenant, :name) RETURNING {_COLUMNS}")
_GET = text(f"SELECT {_COLUMNS} FROM tenants WHERE id = :tenant")
_LIST = text(f"""
SELECT {_COLUMNS} FROM tenants
 WHERE CAST(:after AS text) IS NULL OR id < :after ORDER BY id DESC LIMIT :limit
""")


def insert_tenant(connection: Connection, *, tenant_id: str, name: str) -> TenantRow:
    return TenantRow._make(connection.execute(_INSERT, {"tenant": tenant_id, "name": name}).one())


def get_tenant(connection: Connection, tenant_id: str) -> TenantRow | None:
    row = connection.execute(_GET, {"tenant": tenant_id}).one_or_none()
    return None if row is None else TenantRow._make(row)


def list_tenants(connection: Connection, *, after: str | None, limit: int) -> list[TenantRow]:
    """Newest first, those before the id ``after``."""
    rows = connection.execute(_LIST, {"after": after, "limit": limit})
    return [TenantRow._make(row) for row in rows]
