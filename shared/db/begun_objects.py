"""Queries on objects that are being stored: a row is there before the object is, and goes in the
transaction that writes the row that names it. Whoever is killed in between leaves the first."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from shared.db.retention import ZOMBIE_GRACE

LIMIT = 100

_BEGIN = text("""
INSERT INTO begun_objects (key, tenant_id) VALUES (:key, :tenant)
    ON CONFLICT (key) DO UPDATE SET begun_at = excluded.begun_at
""")
_NAME = text("""
DELETE FROM begun_objects
 WHERE key = :key AND begun_at > clock_timestamp() - CAST(:grace AS interval) / 2
""")
_FORGET = text("DELETE FROM begun_objects WHERE key = ANY(:keys)")
_LEFT = text(f"""
SELECT key FROM begun_objects
 WHERE begun_at < clock_timestamp() - CAST(:grace AS interval) ORDER BY begun_at LIMIT {LIMIT}
""")


def begin_object(connection: Connection, tenant_id: str, key: str) -> None:
    """An object will be stored under ``key``: to be committed before it is."""
    connection.execute(_BEGIN, {"tenant": tenant_id, "key": key})


def name_object(connection: Connection, key: str) -> bool:
    """A row that the same transaction writes names it from here on. False: it was begun so long ago
    that somebody may be about to remove it."""
    return connection.execute(_NAME, {"key": key, "grace": ZOMBIE_GRACE}).rowcount > 0


def forget_objects(connection: Connection, keys: Sequence[str]) -> None:
    """They are gone."""
    connection.execute(_FORGET, {"keys": list(keys)})


def left_objects(connection: Connection) -> list[str]:
    """Keys of some that nobody has come back for, and nobody can be about to."""
    return list(connection.execute(_LEFT, {"grace": ZOMBIE_GRACE}).scalars())
