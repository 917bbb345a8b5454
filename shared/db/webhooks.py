"""Queries on webhook endpoints, on the secrets of tenants, and on deliveries for those who look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

MAX_ENDPOINTS = 100
"""Of one tenant: each of its jobs' ends is told to so many at most."""
OLD_SECRET_HOURS = 24


class EndpointRow(NamedTuple):
    """A webhook endpoint; times in Unix seconds. Its secret is not for every answer."""

    id: str
    name: str
    url: str
    event_types: list[str]
    secret: str
    created_at: float
    updated_at: float
    disabled_at: float | None
    disabled_reason: str | None
    failures: int
    """In a row, of any of its deliveries."""
    open_until: float | None
    """Nothing is sent to it before; None when it answers."""


class SecretRow(NamedTuple):
    """What signs the webhooks of a tenant's jobs; ``secret`` is not for every answer."""

    secret: str
    created_at: float
    updated_at: float


class DeliveryRow(NamedTuple):
    """One event on its way to one receiver; times in Unix seconds."""

    id: str
    endpoint_id: str | None
    url: str
    event_id: str
    event_type: str
    about: str
    test: bool
    status: str
    attempts: list[dict[str, Any]]
    next_attempt_at: float | None
    sending: bool
    status_code: int | None
    error_code: str | None
    created_at: float
    ended_at: float | None


def _seconds(column: str) -> str:
    return f"CAST(extract(epoch FROM {column}) AS double precision)"


_ENDPOINT = f"""
SELECT w.id, w.name, w.url, w.event_types, w.secret, {_seconds("w.created_at")},
       {_seconds("w.updated_at")}, {_seconds("w.disabled_at")}, w.disabled_reason,
       coalesce(c.failures, 0),
       CASE WHEN c.open_until > clock_timestamp() THEN {_seconds("c.open_until")} END
  FROM webhook_endpoints w LEFT JOIN webhook_circuits c ON c.key = w.id
 WHERE w.tenant_id = :tenant AND w.deleted_at IS NULL
"""
_GET = text(f"{_ENDPOINT} AND w.id = :id")
_LIST = text(f"""
{_ENDPOINT} AND (CAST(:after AS text) IS NULL OR w.id < :after) ORDER BY w.id DESC LIMIT :limit
""")

# The tenant's row keeps two creations from counting at once.
_CREATE = text("""
WITH owner AS (SELECT id FROM tenants WHERE id = :tenant FOR UPDATE)
INSERT INTO webhook_endpoints (id, tenant_id, name, url, event_types, secret)
SELECT :id, owner.id, :name, :url, :types, :secret FROM owner
 WHERE (SELECT count(*) FROM webhook_endpoints w
         WHERE w.tenant_id = :tenant AND w.deleted_at IS NULL) < :most
RETURNING id
""")

_UPDATE = text(
    """
UPDATE webhook_endpoints w
   SET name = coalesce(:name, w.name), url = coalesce(:url, w.url),
       event_types = coalesce(CAST(:types AS text[]), w.event_types),
       disabled_at = CASE WHEN :enabled IS NULL THEN w.disabled_at WHEN :enabled THEN NULL
                          ELSE coalesce(w.disabled_at, clock_timestamp()) END,
       disabled_reason = CASE WHEN :enabled IS NULL THEN w.disabled_reason WHEN :enabled THEN NULL
                              ELSE coalesce(w.disabled_reason, 'by_tenant') END,
       updated_at = CASE WHEN (coalesce(:name, w.name), coalesce(:url, w.url),
                               coalesce(CAST(:types AS text[]), w.event_types),
                               coalesce(NOT :enabled, w.disabled_at IS NOT NULL))
                           IS DISTINCT FROM
                              (w.name, w.url, w.event_types, w.disabled_at IS NOT NULL)
                         THEN clock_timestamp() ELSE w.updated_at END
 WHERE w.id = :id AND w.tenant_id = :tenant AND w.deleted_at IS NULL RETURNING w.id
""".replace(":enabled", "CAST(:enabled AS boolean)")
)

_ROTATED = f"""secret = :secret, updated_at = clock_timestamp(),
       old_secret = CASE WHEN :keep THEN secret END,
       old_secret_until = CASE WHEN :keep
                               THEN clock_timestamp() + interval '{OLD_SECRET_HOURS} hours' END"""
_ROTATE = text(f"""
UPDATE webhook_endpoints SET {_ROTATED}
 WHERE id = :id AND tenant_id = :tenant AND deleted_at IS NULL RETURNING id
""")

_DELETE = text("""
UPDATE webhook_endpoints
   SET deleted_at = clock_timestamp(), secret = '', old_secret = NULL, old_secret_until = NULL
 WHERE id = :id AND tenant_id = :tenant AND deleted_at IS NULL RETURNING id
""")

_SECRET = text(f"""
SELECT secret, {_seconds("created_at")}, {_seconds("updated_at")}
  FROM webhook_secrets WHERE tenant_id = :tenant
""")
_ROTATE_SECRET = text(f"""
INSERT INTO webhook_secrets AS s (tenant_id, secret) VALUES (:tenant, :secret)
    ON CONFLICT (tenant_id) DO UPDATE
   SET {
    _ROTATED.replace("THEN secret END", "THEN s.secret END").replace(
        "secret = :secret", "secret = excluded.secret", 1
    )
}
""")

_DELIVERIES = text(f"""
SELECT d.id, d.endpoint_id, coalesce(d.url, w.url), d.event_id, d.event_type, d.about, d.test,
       d.status, d.attempts, CASE WHEN d.lease IS NULL THEN {_seconds("d.next_attempt_at")} END,
       d.lease IS NOT NULL AND d.next_attempt_at > clock_timestamp(), d.status_code, d.error_code,
       {_seconds("d.created_at")}, {_seconds("d.ended_at")}
  FROM webhook_deliveries d LEFT JOIN webhook_endpoints w ON w.id = d.endpoint_id
 WHERE d.tenant_id = :tenant AND w.deleted_at IS NULL
   AND (CAST(:id AS text) IS NULL OR d.id = :id)
   AND (CAST(:endpoint AS text) IS NULL OR d.endpoint_id = :endpoint)
   AND (CAST(:about AS text) IS NULL OR d.about = :about)
   AND (CAST(:status AS text) IS NULL OR d.status = :status)
   AND (CAST(:after AS text) IS NULL OR d.id < :after)
 ORDER BY d.id DESC LIMIT :limit
""")


def create_endpoint(
    connection: Connection,
    *,
    endpoint_id: str,
    tenant_id: str,
    name: str,
    url: str,
    event_types: Sequence[str],
    secret: str,
) -> EndpointRow | None:
    """The new endpoint; None when the tenant has ``MAX_ENDPOINTS`` already."""
    values = {"id": endpoint_id, "tenant": tenant_id, "name": name, "url": url, "secret": secret}
    values |= {"types": list(event_types), "most": MAX_ENDPOINTS}  # type: ignore[dict-item]
    made = connection.execute(_CREATE, values).one_or_none()
    return None if made is None else get_endpoint(connection, tenant_id, endpoint_id)


def get_endpoint(connection: Connection, tenant_id: str, endpoint_id: str) -> EndpointRow | None:
    row = connection.execute(_GET, {"tenant": tenant_id, "id": endpoint_id}).one_or_none()
    return None if row is None else EndpointRow._make(row)


def list_endpoints(
    connection: Connection, tenant_id: str, *, after: str | None, limit: int
) -> list[EndpointRow]:
    """Newest first."""
    rows = connection.execute(_LIST, {"tenant": tenant_id, "after": after, "limit": limit})
    return [EndpointRow._make(row) for row in rows]


def update_endpoint(
    connection: Connection,
    tenant_id: str,
    endpoint_id: str,
    *,
    name: str | None = None,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> EndpointRow | None:
    """Changes what is given; ``updated_at`` moves when something did. None: no such endpoint."""
    values = {"tenant": tenant_id, "id": endpoint_id, "name": name, "url": url, "enabled": enabled}
    values |= {"types": None if event_types is None else list(event_types)}  # type: ignore[dict-item]
    if connection.execute(_UPDATE, values).one_or_none() is None:
        return None
    return get_endpoint(connection, tenant_id, endpoint_id)


def rotate_endpoint_secret(
    connection: Connection, tenant_id: str, endpoint_id: str, *, secret: str, keep_old: bool
) -> EndpointRow | None:
    """Signs with ``secret`` from now on, and with the old one too for a day if it is kept. None:
    no such endpoint."""
    values = {"tenant": tenant_id, "id": endpoint_id, "secret": secret, "keep": keep_old}
    if connection.execute(_ROTATE, values).one_or_none() is None:
        return None
    return get_endpoint(connection, tenant_id, endpoint_id)


def delete_endpoint(connection: Connection, tenant_id: str, endpoint_id: str) -> bool:
    """Forgets its secret; whether there was such an endpoint."""
    values = {"tenant": tenant_id, "id": endpoint_id}
    return connection.execute(_DELETE, values).one_or_none() is not None


def get_secret(connection: Connection, tenant_id: str) -> SecretRow | None:
    """What the webhooks of the tenant's jobs are signed with; None before the first rotation."""
    row = connection.execute(_SECRET, {"tenant": tenant_id}).one_or_none()
    return None if row is None else SecretRow._make(row)


def rotate_secret(
    connection: Connection, tenant_id: str, *, secret: str, keep_old: bool
) -> SecretRow:
    """As ``rotate_endpoint_secret``, for the tenant's own; makes the first one."""
    connection.execute(_ROTATE_SECRET, {"tenant": tenant_id, "secret": secret, "keep": keep_old})
    row = get_secret(connection, tenant_id)
    assert row is not None  # noqa: S101 - the statement before has made it
    return row


def list_deliveries(
    connection: Connection,
    tenant_id: str,
    *,
    endpoint_id: str | None = None,
    about: str | None = None,
    status: str | None = None,
    after: str | None = None,
    limit: int,
) -> list[DeliveryRow]:
    """Newest first: of one endpoint, about one job, or all of the tenant's."""
    values = {"tenant": tenant_id, "id": None, "endpoint": endpoint_id, "about": about}
    values |= {"status": status, "after": after, "limit": limit}  # type: ignore[dict-item]
    return [DeliveryRow._make(row) for row in connection.execute(_DELIVERIES, values)]


def get_delivery(connection: Connection, tenant_id: str, delivery_id: str) -> DeliveryRow | None:
    values = {"tenant": tenant_id, "id": delivery_id, "endpoint": None, "about": None}
    values |= {"status": None, "after": None, "limit": 1}  # type: ignore[dict-item]
    row = connection.execute(_DELIVERIES, values).one_or_none()
    return None if row is None else DeliveryRow._make(row)
