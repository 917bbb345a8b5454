"""What callers' names for requests and jobs stand for. ``shared.lifecycle`` writes what a request
made, in the transaction that makes it; a claim comes before, in one of its own."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

CLAIM_SECONDS = 30
"""How long a request may take from its claim to its commit before another one may take over."""
RETRY_SECONDS = 600
"""How long a client's own retry finds what its first attempt made."""
RETRIES = "retry"
"""Stands for the route where ``key`` is the hash of a request: no route of ours is called so."""


class Remembered(NamedTuple):
    """What an Idempotency-Key, or a caller's own id of a job, was first used for."""

    fingerprint: bytes
    job_id: str


class Claim(NamedTuple):
    """How an Idempotency-Key stands, for one who has just asked for it."""

    fingerprint: bytes
    """Of the body that the key is for."""
    is_mine: bool
    """Whether it is the asker's to use now."""
    made: str | None
    """The id of what it was used for; None while that is under way."""


# One round trip, and no wait: whoever commits the key at this moment holds its row.
_CLAIM = text("""
WITH known AS (
    SELECT fingerprint, claim, coalesce(job_id, object_id) AS made,
           claimed_at < clock_timestamp() - make_interval(secs => :lease) AS is_stale
      FROM idempotency_keys WHERE tenant_id = :tenant AND route = :route AND key = :key
), claimed AS (
    INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, claim, claimed_at)
    SELECT CAST(:tenant AS text), CAST(:route AS text), CAST(:key AS text),
           CAST(:fingerprint AS bytea), CAST(:claim AS text), clock_timestamp()
     WHERE NOT EXISTS (SELECT 1 FROM known)
        ON CONFLICT DO NOTHING
    RETURNING fingerprint, claim, CAST(NULL AS text), false
)
SELECT * FROM known UNION ALL SELECT * FROM claimed
""")

_TAKE_OVER = text("""
UPDATE idempotency_keys k
   SET claim = :claim, claimed_at = clock_timestamp(), fingerprint = :fingerprint
  FROM (SELECT tenant_id, route, key FROM idempotency_keys
         WHERE tenant_id = :tenant AND route = :route AND key = :key
           AND job_id IS NULL AND object_id IS NULL
           AND claimed_at < clock_timestamp() - make_interval(secs => :lease)
           FOR UPDATE SKIP LOCKED) stale
 WHERE (k.tenant_id, k.route, k.key) = (stale.tenant_id, stale.route, stale.key)
""")

_RELEASE = text("""
DELETE FROM idempotency_keys
 WHERE tenant_id = :tenant AND route = :route AND key = :key AND claim = :claim
""")

_FIND_RETRIED = text("""
SELECT made FROM (
    SELECT id AS made, created_at FROM jobs
     WHERE request_hash = :hash AND tenant_id = :tenant AND deleted_at IS NULL
     UNION ALL
    SELECT coalesce(job_id, object_id), created_at FROM idempotency_keys
     WHERE tenant_id = :tenant AND route = :route AND key = :key
) found
 WHERE created_at > clock_timestamp() - make_interval(secs => :seconds)
 ORDER BY created_at DESC LIMIT 1
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


def claim_key(
    connection: Connection,
    tenant_id: str,
    *,
    route: str,
    key: str,
    fingerprint: bytes,
    claim: str,
) -> Claim:
    """Asks for an Idempotency-Key under the name ``claim``. One that is unused, or whose holder let
    its lease run out, is the asker's. Never waits for a transaction that uses the key."""
    values = {
        "tenant": tenant_id,
        "route": route,
        "key": key,
        "fingerprint": fingerprint,
        "claim": claim,
        "lease": CLAIM_SECONDS,
    }
    row = connection.execute(_CLAIM, values).one_or_none()
    if row is None:
        # Somebody claimed it since the statement began: theirs is visible to the next one.
        row = connection.execute(_CLAIM, values).one_or_none()
    if row is None:
        return Claim(fingerprint, False, None)
    known, holder, made, is_stale = row
    stale = made is None and holder != claim and is_stale
    if stale and connection.execute(_TAKE_OVER, values).rowcount:
        return Claim(fingerprint, True, None)
    return Claim(bytes(known), made is None and holder == claim, made)


def release_claim(
    connection: Connection, tenant_id: str, *, route: str, key: str, claim: str
) -> None:
    """Forgets a key whose request made nothing; one that was used, or taken over, stays."""
    values = {"tenant": tenant_id, "route": route, "key": key, "claim": claim}
    connection.execute(_RELEASE, values)


def find_retried(connection: Connection, tenant_id: str, request_hash: bytes) -> str | None:
    """The id of what the newest request with this hash made, of the last ten minutes."""
    values = {
        "tenant": tenant_id,
        "hash": request_hash,
        "route": RETRIES,
        "key": request_hash.hex(),
        "seconds": RETRY_SECONDS,
    }
    made: str | None = connection.execute(_FIND_RETRIED, values).scalar_one_or_none()
    return made
