"""How long tenants keep what they have: the settings' days, and what a tenant has of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.retention import KINDS, Days, merged

_GET = text("""
SELECT CAST(p.days AS text) FROM tenants t LEFT JOIN retention_policies p ON p.tenant_id = t.id
 WHERE t.id = :tenant
""")

_PUT = text("""
INSERT INTO retention_policies (tenant_id, days)
SELECT id, CAST(:days AS jsonb) FROM tenants WHERE id = :tenant
    ON CONFLICT (tenant_id) DO UPDATE
   SET days = excluded.days, updated_at = clock_timestamp()
RETURNING tenant_id
""")

_DELETE = text("DELETE FROM retention_policies WHERE tenant_id = :tenant")

_MARK = text("""
INSERT INTO retention_marks (tenant_id, what, until)
VALUES (:tenant, :what, CAST(:until AS timestamptz))
    ON CONFLICT (tenant_id, what) DO UPDATE
   SET until = greatest(retention_marks.until, excluded.until)
""")


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one tenant."""

    days: Days
    """Of every kind."""
    own: tuple[str, ...]
    """The kinds for which that is not the settings' doing."""


class DueTenant(NamedTuple):
    """A tenant that has something older than its policy allows."""

    tenant_id: str
    days: int


def get_policy(connection: Connection, tenant_id: str, defaults: Days) -> Policy | None:
    """None when there is no such tenant."""
    row = connection.execute(_GET, {"tenant": tenant_id}).one_or_none()
    if row is None:
        return None
    own = {} if row[0] is None else json.loads(row[0])
    return Policy(merged(defaults, own), tuple(kind for kind in KINDS if kind in own))


def put_policy(connection: Connection, tenant_id: str, own: Days) -> bool:
    """Replaces what the tenant has of its own; false when there is no such tenant."""
    values = {"tenant": tenant_id, "days": json.dumps(dict(own))}
    return connection.execute(_PUT, values).one_or_none() is not None


def delete_policy(connection: Connection, tenant_id: str) -> None:
    """The settings hold for the tenant again."""
    connection.execute(_DELETE, {"tenant": tenant_id})


_DUE = """
SELECT k.id, k.days
  FROM (SELECT t.id, CASE WHEN jsonb_exists(p.days, '{kind}')
                          THEN CAST(p.days ->> '{kind}' AS int)
                          ELSE CAST(:default AS int) END AS days
          FROM tenants t LEFT JOIN retention_policies p ON p.tenant_id = t.id) k
 WHERE k.days IS NOT NULL AND EXISTS ({something})
 ORDER BY random()
"""

OLD = "(SELECT clock_timestamp() - make_interval(days => {days}))"
"""The moment before which a row is too old; asked once, it bounds a scan."""

_SOMETHING = {
    "input_files": "SELECT 1 FROM files f WHERE f.tenant_id = k.id AND f.deleted_at IS NULL"
    " AND f.created_at < {old}",
    "outputs": "SELECT 1 FROM jobs j WHERE j.tenant_id = k.id AND j.ended_at IS NOT NULL"
    " AND j.ended_at < {old} AND j.ended_at > {mark}",
    "jobs": "SELECT 1 FROM jobs j WHERE j.tenant_id = k.id AND j.ended_at IS NOT NULL"
    " AND j.ended_at < {old}",
    "events": "SELECT 1 FROM jobs j WHERE j.tenant_id = k.id AND j.ended_at IS NOT NULL"
    " AND j.ended_at < {old} AND j.ended_at > {mark}",
    "usage": "SELECT 1 FROM usage u WHERE u.tenant_id = k.id AND u.created_at < {old}"
    " UNION ALL SELECT 1 FROM usage_days d WHERE d.tenant_id = k.id"
    " AND d.day < CAST({old} AS date)",
    "archive": "SELECT 1 FROM archived_jobs a WHERE a.tenant_id = k.id AND a.ended_at < {old}",
}
_OUTPUT_FILES = (
    "SELECT 1 FROM files f WHERE f.tenant_id = k.id AND f.deleted_at IS NULL"
    " AND f.created_at < {old}"
)

MARKED = """coalesce((SELECT m.until FROM retention_marks m
                       WHERE m.tenant_id = {tenant} AND m.what = '{kind}'), '-infinity')"""


def _due(kind: str, something: str) -> str:
    mark = MARKED.format(tenant="k.id", kind=kind)
    return _DUE.format(
        kind=kind, something=something.format(old=OLD.format(days="k.days"), mark=mark)
    )


_DUE_BY_KIND = {kind: text(_due(kind, something)) for kind, something in _SOMETHING.items()}
_DUE_FILES = text(_due("outputs", _OUTPUT_FILES))


def due_tenants(connection: Connection, kind: str, default: int | None) -> list[DueTenant]:
    """Tenants that may have something of ``kind`` to let go of, in no order that favours one."""
    rows = connection.execute(_DUE_BY_KIND[kind], {"default": default})
    return [DueTenant._make(row) for row in rows]


def due_output_files(connection: Connection, default: int | None) -> list[DueTenant]:
    """As ``due_tenants``, of outputs that are files rather than artifacts."""
    rows = connection.execute(_DUE_FILES, {"default": default})
    return [DueTenant._make(row) for row in rows]


def mark(connection: Connection, tenant_id: str, what: str, until: str) -> None:
    """All of ``what`` that jobs left which ended ``until`` then (ISO 8601) is gone."""
    connection.execute(_MARK, {"tenant": tenant_id, "what": what, "until": until})
