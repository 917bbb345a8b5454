"""Queries on ``api_keys``. The key itself is never stored: its SHA-256 and visible start are."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text


class KeyRow(NamedTuple):
    """A key as administrators see it; times in Unix seconds."""

    id: str
    name: str
    prefix: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class KeyOwner(NamedTuple):
    """Whose key it is, and for how many more seconds (None: no end)."""

    tenant_id: str
    seconds_left: float | None


def _epoch(column: str) -> str:
    return f"CAST(extract(epoch FROM {column}) AS double precision) AS {column}"


_COLUMNS = f"""id, name, prefix, {_epoch("created_at")}, {_epoch("expires_at")},
       {_epoch("revoked_at")}"""

_INSERT = text(f"""
INSERT INTO api_keys (id, tenant_id, name, prefix, hash, expires_at)
VALUES (:id, :tenant, :name, :prefix, :hash,
        clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision)))
RETURNING {_COLUMNS}
""")

# A function, since it is asked before it is known for whom.
_OWNER = text("""
SELECT tenant_id, seconds_left FROM pressrun_key_owner(CAST(:hash AS bytea))
""")

_LIST = text(f"""
SELECT {_COLUMNS} FROM api_keys
 WHERE tenant_id = :tenant AND (CAST(:after AS text) IS NULL OR id < :after)
 ORDER BY id DESC LIMIT :limit
""")

_REVOKE = text(f"""
UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
 WHERE tenant_id = :tenant AND id = :id RETURNING {_COLUMNS}
""")


def insert_key(
    connection: Connection,
    *,
    key_id: str,
    tenant_id: str,
    name: str,
    prefix: str,
    key_hash: bytes,
    expires_in_seconds: float | None,
) -> KeyRow:
    """Raises sqlalchemy's IntegrityError when there is no such tenant."""
    values = {
        "id": key_id,
        "tenant": tenant_id,
        "name": name,
        "prefix": prefix,
        "hash": key_hash,
        "seconds": expires_in_seconds,
    }
    return KeyRow._make(connection.execute(_INSERT, values).one())


def find_owner(connection: Connection, key_hash: bytes) -> KeyOwner | None:
    """The tenant of a key that is good now: neither revoked nor expired."""
    row = connection.execute(_OWNER, {"hash": key_hash}).one_or_none()
    return None if row is None else KeyOwner._make(row)


def list_keys(
    connection: Connection, tenant_id: str, *, after: str | None, limit: int
) -> list[KeyRow]:
    """Newest first, those before the id ``after``."""
    values = {"tenant": tenant_id, "after": after, "limit": limit}
    return [KeyRow._make(row) for row in connection.execute(_LIST, values)]


def revoke_key(connection: Connection, tenant_id: str, key_id: str) -> KeyRow | None:
    """Ends a key; revoking it again changes nothing. None when the tenant has no such key."""
    row = connection.execute(_REVOKE, {"tenant": tenant_id, "id": key_id}).one_or_none()
    return None if row is None else KeyRow._make(row)
