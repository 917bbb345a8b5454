"""Queries on ``tenants`` and ``tenant_limits``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.quotas.limits import Limits


class TenantRow(NamedTuple):
    """A tenant; ``created_at`` in Unix seconds."""

    id: str
    name: str
    created_at: float
    disabled: bool
    weight: float
    """Its part of a pool, over the weights of all who wait there."""
    limits: Limits


class TenantTerms(NamedTuple):
    """What decides whether a tenant's request is let in."""

    disabled: bool
    limits: Limits


_LIMITS = ", ".join(f"l.{name}" for name in Limits._fields)
_OWN = """t.id, t.name, CAST(extract(epoch FROM t.created_at) AS double precision) AS created_at,
       t.disabled_at IS NOT NULL AS disabled, t.weight"""
_OWN_N = 5
_SELECT = f"""
SELECT {_OWN}, {_LIMITS} FROM tenants t LEFT JOIN tenant_limits l ON l.tenant_id = t.id"""

_INSERT = text("INSERT INTO tenants (id, name) VALUES (:tenant, :name)")
_GET = text(f"{_SELECT} WHERE t.id = :tenant")
_LIST = text(f"""{_SELECT}
 WHERE CAST(:after AS text) IS NULL OR t.id < :after ORDER BY t.id DESC LIMIT :limit
""")

_TERMS = text(f"""
SELECT t.disabled_at IS NOT NULL, {_LIMITS}
  FROM tenants t LEFT JOIN tenant_limits l ON l.tenant_id = t.id WHERE t.id = :tenant
""")

_LOCK = text("SELECT 1 FROM tenants WHERE id = :tenant FOR NO KEY UPDATE")
_DISABLE = text("""
UPDATE tenants SET disabled_at = CASE WHEN :disabled THEN coalesce(disabled_at, clock_timestamp())
                                 END WHERE id = :tenant
""")
_CHANGE = {
    name: text(f"UPDATE tenants SET {name} = :value WHERE id = :tenant")
    for name in ("name", "weight")
}
# Nothing of a disabled tenant's begins to run.
_HOLD_BACK = text("""
UPDATE tenants t
   SET max_running_shards = CASE WHEN t.disabled_at IS NULL THEN (
           SELECT l.running_shards FROM tenant_limits l WHERE l.tenant_id = t.id) ELSE 0 END
 WHERE t.id = :tenant
""")
_ADD_LIMITS = text("""
INSERT INTO tenant_limits (tenant_id) VALUES (:tenant) ON CONFLICT (tenant_id) DO NOTHING
""")
_LIMIT = {
    name: text(
        f"UPDATE tenant_limits SET {name} = :value, settled = false WHERE tenant_id = :tenant"
    )
    for name in Limits._fields
}
_DROP_LIMITS = text("DELETE FROM tenant_limits WHERE tenant_id = :tenant")


def insert_tenant(connection: Connection, *, tenant_id: str, name: str) -> TenantRow:
    """Without limits; ``change_tenant`` gives it some."""
    connection.execute(_INSERT, {"tenant": tenant_id, "name": name})
    return _read(tuple(connection.execute(_GET, {"tenant": tenant_id}).one()))


def get_tenant(connection: Connection, tenant_id: str) -> TenantRow | None:
    row = connection.execute(_GET, {"tenant": tenant_id}).one_or_none()
    return None if row is None else _read(tuple(row))


def list_tenants(connection: Connection, *, after: str | None, limit: int) -> list[TenantRow]:
    """Newest first, those before the id ``after``."""
    rows = connection.execute(_LIST, {"after": after, "limit": limit})
    return [_read(tuple(row)) for row in rows]


def get_terms(connection: Connection, tenant_id: str) -> TenantTerms | None:
    """None when there is no such tenant."""
    row = connection.execute(_TERMS, {"tenant": tenant_id}).one_or_none()
    return None if row is None else TenantTerms(row[0], Limits._make(row[1:]))


def change_tenant(connection: Connection, tenant_id: str, changes: Mapping[str, Any]) -> bool:
    """Sets the tenant's ``name``, ``weight``, whether it is ``disabled``, and any of ``Limits``; a
    limit of None is none. False when there is no such tenant.

    Work of a disabled tenant waits; what runs already ends.
    """
    if connection.execute(_LOCK, {"tenant": tenant_id}).scalar() is None:
        return False
    for name in changes.keys() & _CHANGE.keys():
        connection.execute(_CHANGE[name], {"tenant": tenant_id, "value": changes[name]})
    if "disabled" in changes:
        connection.execute(_DISABLE, {"tenant": tenant_id, "disabled": changes["disabled"]})
    limits = changes.keys() & _LIMIT.keys()
    if limits:
        connection.execute(_ADD_LIMITS, {"tenant": tenant_id})
        for name in sorted(limits):
            connection.execute(_LIMIT[name], {"tenant": tenant_id, "value": changes[name]})
        terms = get_terms(connection, tenant_id)
        if terms is not None and terms.limits == Limits():
            connection.execute(_DROP_LIMITS, {"tenant": tenant_id})
    if changes.keys() & {"disabled", "running_shards"}:
        connection.execute(_HOLD_BACK, {"tenant": tenant_id})
    return True


def _read(row: tuple[Any, ...]) -> TenantRow:
    return TenantRow._make([*row[:_OWN_N], Limits._make(row[_OWN_N:])])
