"""What a caller's own names for requests and jobs were first used for; ``shared.lifecycle`` writes
them in the submit's transaction."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text


class Remembered(NamedTuple):
    """What an Idempotency-Key, or a caller's own id of a job, was first used for."""

    fingerprint: bytes
    job_id: str


_FIND = text("""
SELECT fingerprint, job_id FROM idempotency_keys
 WHERE tenant_id = :tenant AND route = :route AND key = :key
""")


_FIND_CLIENT_ID = text("""
SELECT client_fingerprint, id FROM jobs
 WHERE tenant_id = :tenant AND client_id = :client_id AND deleted_at IS NULL
""")


def find_client_id(connection: Connection, tenant_id: str, client_id: str) -> Remembered | None:
    """The job that the tenant calls so, and the fingerprint of the body that it was put with."""
    values = {"tenant": tenant_id, "client_id": client_id}
    row = connection.execute(_FIND_CLIENT_ID, values).one_or_none()
    return None if row is None else Remembered(bytes(row.client_fingerprint), row.id)


def find_first_use(
    connection: Connection, tenant_id: str, *, route: str, key: str
) -> Remembered | None:
    row = connection.execute(_FIND, {"tenant": tenant_id, "route": route, "key": key}).one_or_none()
    return None if row is None else Remembered(bytes(row.fingerprint), row.job_id)
