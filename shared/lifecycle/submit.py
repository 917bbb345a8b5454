"""Accepting work: the job, its first shard and the idempotency key, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from shared.db.security import SAID, says_for_whom
from shared.lifecycle.quotas import BIND_WORK, hold
from shared.lifecycle.steps import add_steps
from shared.lifecycle.used_keys import Idempotency, remember
from shared.pools import UPKEEP
from shared.states import Stage

if TYPE_CHECKING:
    from shared.plans.base import Step

SHARD = """
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, ready_seq, priority)
SELECT CAST(:id AS text), CAST(:tenant AS text), CAST(:pool AS text), CAST(:stage AS text), 0,
       CASE WHEN room.free THEN 'ready' ELSE 'queued' END,
       CASE WHEN room.free THEN nextval('ready_seq') END,
       CAST(:priority AS int)
  FROM (SELECT NOT EXISTS (SELECT 1 FROM shards
                            WHERE pool = :pool AND tenant_id = :tenant AND state = 'queued'
                              AND blocked_n = 0)
           AND (SELECT count(*) FROM (SELECT 1 FROM shards
                                       WHERE pool = :pool AND tenant_id = :tenant
                                         AND state = 'ready' LIMIT :window) taken) < :window
               AS free) room
"""
"""A job's first shard; ready at once when nobody of the tenant waits and its window has room: no
need to wait for a dispatcher."""

# Tenants with limits take another way: see ``submit_generations``. CASE, since no limits are seen,
# and so none are found, before it is said for whom the statement is. And LIMIT: an EXISTS may be
# planned as a hash of all that wait.
_GENERATIONS = says_for_whom(
    text(f"""
WITH asked AS (
    SELECT * FROM unnest(
        CAST(:ids AS text[]), CAST(:tenants AS text[]), CAST(:pools AS text[]),
        CAST(:endpoints AS text[]), CAST(:models AS text[]), CAST(:specs AS text[]),
        CAST(:metadata AS text[]), CAST(:priorities AS int[]),
        CAST(:seconds AS double precision[]), CAST(:kinds AS text[]),
        CAST(:client_ids AS text[]), CAST(:fingerprints AS bytea[]),
        CAST(:details AS text[]), CAST(:hashes AS bytea[])) WITH ORDINALITY
      AS n (id, tenant_id, pool, endpoint, model, spec, metadata, priority, seconds, kind,
            client_id, fingerprint, detail, request_hash, turn)
), new AS (
    SELECT * FROM asked
     WHERE CASE WHEN {SAID} THEN CAST(:held AS boolean) OR NOT EXISTS (
         SELECT 1 FROM tenant_limits l WHERE l.tenant_id = ANY(CAST(:tenants AS text[]))
            AND ({BIND_WORK})) END
), job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, metadata,
                      priority, shards_open, rows_total, expires_at, client_id,
                      client_fingerprint, detail, request_hash)
    SELECT id, tenant_id, kind, 'queued', 'generate', endpoint, model, CAST(spec AS json),
           CAST(metadata AS json), priority, 1, 1,
           clock_timestamp() + make_interval(secs => seconds), client_id, fingerprint,
           CAST(detail AS json), request_hash
      FROM new
), room AS (
    SELECT g.tenant_id, g.pool,
           CASE WHEN (SELECT true FROM shards q WHERE q.pool = g.pool
                         AND q.tenant_id = g.tenant_id AND q.state = 'queued'
                         AND q.blocked_n = 0 LIMIT 1) THEN 0
                ELSE :window - (SELECT count(*) FROM (
                         SELECT 1 FROM shards r WHERE r.pool = g.pool
                            AND r.tenant_id = g.tenant_id AND r.state = 'ready'
                          LIMIT :window) taken) END AS free
      FROM (SELECT DISTINCT tenant_id, pool FROM new) g
), placed AS (
    SELECT new.*, room.free >= row_number() OVER (
               PARTITION BY new.tenant_id, new.pool ORDER BY new.priority, new.turn) AS ready
      FROM new JOIN room ON room.tenant_id = new.tenant_id AND room.pool = new.pool
)
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, ready_seq, priority, model)
SELECT id, tenant_id, pool, 'generate', 0, CASE WHEN ready THEN 'ready' ELSE 'queued' END,
       CASE WHEN ready THEN nextval('ready_seq') END, priority, model
  FROM placed ORDER BY turn
""")
)

_BATCH = text(f"""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec, metadata, priority,
                      input_file_id, validation_file_id, shards_open, expires_at)
    VALUES (:id, :tenant, 'batch', 'queued', :stage, :endpoint, CAST(:spec AS json),
            CAST(:metadata AS json), :priority, :input_file_id, :rows_file_id, 1,
            clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))))
{SHARD}
""")

_PLANNED = text("""
INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, metadata, priority,
                  shards_open, rows_total, expires_at, client_id, client_fingerprint, detail)
VALUES (:id, :tenant, :kind, 'queued', 'step', :endpoint, :model, CAST(:spec AS json),
        CAST(:metadata AS json), :priority, :steps, :steps,
        clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision)),
        :client_id, :client_fingerprint, CAST(:detail AS json))
""")


@dataclass(frozen=True, slots=True)
class ClientId:
    """The caller's own id of a job, and the SHA-256 of the body that it stands for."""

    value: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class NewGeneration:
    """One inference call to be queued."""

    job_id: str
    tenant_id: str
    pool: str
    endpoint: str
    model: str
    spec: str
    """The validated body as JSON."""
    metadata: dict[str, str] | None = None
    priority: int = 0
    expires_in_seconds: float | None = None
    kind: str = "generate"
    client_id: ClientId | None = None
    detail: dict[str, Any] | None = None
    """What is known of it from the start: the aliases that it named, and who held them."""
    request_hash: bytes | None = None
    """As in ``Idempotency``."""


def submit_generations(
    connection: Connection, new: Sequence[NewGeneration], *, window: int
) -> None:
    """Queues inference calls, of any tenants: all of them or none. For a transaction.

    Raises sqlalchemy's IntegrityError when a tenant has used a client id already, QuotaExceeded or
    BudgetExceeded.
    """
    if not new or _add(connection, new, window=window, held=False):
        return
    _add(connection, new, window=window, held=True)
    for tenant_id in sorted({item.tenant_id for item in new}):
        hold(connection, tenant_id, [item.job_id for item in new if item.tenant_id == tenant_id])


def submit_unlimited_generations(
    connection: Connection, new: Sequence[NewGeneration], *, window: int
) -> bool:
    """As ``submit_generations``, in one statement that needs no transaction; False, and nothing is
    queued, when one of the tenants has limits: they are looked at in ``submit_generations``."""
    return _add(connection, new, window=window, held=False)


def _add(connection: Connection, new: Sequence[NewGeneration], *, window: int, held: bool) -> bool:
    """Whether they were added: without ``held``, only if none of the tenants has limits."""
    added = connection.execute(
        _GENERATIONS,
        {
            "held": held,
            "ids": [item.job_id for item in new],
            "tenants": [item.tenant_id for item in new],
            "pools": [item.pool for item in new],
            "endpoints": [item.endpoint for item in new],
            "models": [item.model for item in new],
            "specs": [item.spec for item in new],
            "metadata": [
                None if item.metadata is None else json.dumps(item.metadata) for item in new
            ],
            "priorities": [item.priority for item in new],
            "seconds": [item.expires_in_seconds for item in new],
            "kinds": [item.kind for item in new],
            "client_ids": [item.client_id and item.client_id.value for item in new],
            "fingerprints": [item.client_id and item.client_id.fingerprint for item in new],
            "details": [json.dumps(item.detail or {}) for item in new],
            "hashes": [item.request_hash for item in new],
            "window": window,
        },
    )
    return added.rowcount > 0


def submit_generation(
    connection: Connection,
    *,
    job_id: str,
    tenant_id: str,
    pool: str,
    endpoint: str,
    model: str,
    body: dict[str, Any] | str,
    metadata: dict[str, str] | None = None,
    priority: int = 0,
    expires_in_seconds: float | None = None,
    window: int,
    idempotency: Idempotency | None = None,
    kind: str = "generate",
    detail: dict[str, Any] | None = None,
) -> None:
    """Queues one inference call; ``body`` is already validated (a str is taken as its JSON).

    Raises sqlalchemy's IntegrityError when the idempotency key is taken: roll back and read it.
    """
    spec = body if isinstance(body, str) else json.dumps(body)
    new = NewGeneration(
        job_id, tenant_id, pool, endpoint, model, spec, metadata, priority, expires_in_seconds,
        kind, detail=detail,
    )  # fmt: skip
    submit_generations(connection, [new], window=window)
    remember(connection, tenant_id, job_id, idempotency)


def submit_plan(
    connection: Connection,
    *,
    job_id: str,
    tenant_id: str,
    kind: str,
    endpoint: str,
    model: str | None,
    body: dict[str, Any] | str,
    steps: Sequence[Step],
    metadata: dict[str, str] | None = None,
    priority: int = 0,
    expires_in_seconds: float | None = None,
    window: int,
    idempotency: Idempotency | None = None,
    client_id: ClientId | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Queues a job that is a graph: a shard for each of its ``steps``, of which those that need no
    other may run at once. The last one's result is the job's.

    Raises sqlalchemy's IntegrityError when the idempotency key or the client id is taken: roll
    back and read it.
    """
    connection.execute(
        _PLANNED,
        {
            "id": job_id,
            "tenant": tenant_id,
            "kind": kind,
            "endpoint": endpoint,
            "model": model,
            "spec": body if isinstance(body, str) else json.dumps(body),
            "metadata": None if metadata is None else json.dumps(metadata),
            "priority": priority,
            "steps": len(steps),
            "seconds": expires_in_seconds,
            "client_id": client_id and client_id.value,
            "client_fingerprint": client_id and client_id.fingerprint,
            "detail": json.dumps(detail or {}),
        },
    )
    add_steps(connection, job_id, steps, window=window)
    hold(connection, tenant_id, [job_id])
    remember(connection, tenant_id, job_id, idempotency)


def submit_batch(
    connection: Connection,
    *,
    job_id: str,
    tenant_id: str,
    endpoint: str,
    input_file_id: str,
    spec: dict[str, Any],
    metadata: dict[str, str] | None = None,
    priority: int = 0,
    expires_in_seconds: float,
    window: int,
    idempotency: Idempotency | None = None,
    rows_file_id: str | None = None,
) -> None:
    """Queues a batch: its first shard validates the input on an upkeep worker. ``rows_file_id`` is
    an error file that says which rows of the input are meant; both stay until the batch ends."""
    connection.execute(
        _BATCH,
        {
            "id": job_id,
            "tenant": tenant_id,
            "pool": UPKEEP,
            "stage": Stage.VALIDATE,
            "endpoint": endpoint,
            "input_file_id": input_file_id,
            "rows_file_id": rows_file_id,
            "spec": json.dumps(spec),
            "metadata": None if metadata is None else json.dumps(metadata),
            "priority": priority,
            "seconds": expires_in_seconds,
            "window": window,
        },
    )
    hold(connection, tenant_id, [job_id])
    remember(connection, tenant_id, job_id, idempotency)
