"""Remembering what a request made, in the transaction that makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.db.idempotency import RETRIES
from shared.errors import RequestUnderWay

_REMEMBER = text("""
INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, job_id)
VALUES (:tenant, :route, :key, :fingerprint, :job)
""")

_USE = text("""
UPDATE idempotency_keys SET job_id = :job, object_id = :object, claim = NULL, claimed_at = NULL
 WHERE tenant_id = :tenant AND route = :route AND key = :key AND claim = :claim
""")

_HASH_OF_JOB = text("UPDATE jobs SET request_hash = :hash WHERE id = :job")

# Of several requests with the same hash, a retry is most likely the newest one's.
_HASH_OF_OBJECT = text("""
INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, object_id)
VALUES (:tenant, :route, :key, :fingerprint, :object)
    ON CONFLICT (tenant_id, route, key) DO UPDATE
   SET object_id = excluded.object_id, created_at = clock_timestamp()
""")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's promise that a repeated request is the same one."""

    route: str
    key: str | None
    fingerprint: bytes
    claim: str | None = None
    """Under which the key was claimed before; None for one that nobody has claimed."""
    request_hash: bytes | None = None
    """Instead of a key, of a client that sends requests again by itself."""


def remember(
    connection: Connection, tenant_id: str, job_id: str, idempotency: Idempotency | None
) -> None:
    """Keeps which job a request made; a key that is taken breaks the transaction. Raises
    RequestUnderWay when the claim on it was taken over: roll back."""
    if idempotency is None:
        return
    if idempotency.claim is not None:
        _use_claim(connection, tenant_id, idempotency, job=job_id)
    elif idempotency.key is not None:
        values = {
            "tenant": tenant_id,
            "route": idempotency.route,
            "key": idempotency.key,
            "fingerprint": idempotency.fingerprint,
            "job": job_id,
        }
        connection.execute(_REMEMBER, values)
    elif idempotency.request_hash is not None:
        connection.execute(_HASH_OF_JOB, {"hash": idempotency.request_hash, "job": job_id})


def remember_object(
    connection: Connection, tenant_id: str, object_id: str, idempotency: Idempotency | None
) -> None:
    """As ``remember``, of a request that made something else than a job; a key must be claimed."""
    if idempotency is None:
        return
    if idempotency.request_hash is not None:
        values = {
            "tenant": tenant_id,
            "route": RETRIES,
            "key": idempotency.request_hash.hex(),
            "fingerprint": idempotency.fingerprint,
            "object": object_id,
        }
        connection.execute(_HASH_OF_OBJECT, values)
    else:
        _use_claim(connection, tenant_id, idempotency, object=object_id)


def _use_claim(
    connection: Connection, tenant_id: str, idempotency: Idempotency, **made: str
) -> None:
    values: dict[str, Any] = {
        "tenant": tenant_id,
        "route": idempotency.route,
        "key": idempotency.key,
        "claim": idempotency.claim,
        "job": None,
        "object": None,
    }
    if not connection.execute(_USE, values | made).rowcount:
        raise RequestUnderWay("this request took too long, and another one works on it now")
