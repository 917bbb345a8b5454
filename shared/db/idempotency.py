"""Queries on ``idempotency_keys``; ``shared.lifecycle`` writes them in the submit's transaction."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text


class Remembered(NamedTuple):
    """What an Idempotency-Key was first used for."""

    fingerprint: bytes
    job_id: str


_FIND = text("""
SELECT fingerprint, job_id FROM idempotency_keys
 WHERE tenant_id = :tenant AND route = :route AND key = :key
""")


def find_first_use(
    connection: Connection, tenant_id: str, *, route: str, key: str
) -> Remembered | None:
    row = connection.execute(_FIND, {"tenant": tenant_id, "route": route, "key": key}).one_or_none()
    return None if row is None else Remembered(bytes(row.fingerprint), row.job_id)
