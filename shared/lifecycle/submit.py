"""Accepting work: the job, its first shard and the idempotency key, in one transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.states import Stage

_SHARD = """
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, ready_seq, priority)
SELECT CAST(:id AS text), CAST(:tenant AS text), CAST(:pool AS text), CAST(:stage AS text), 0,
       CASE WHEN room.free THEN 'ready' ELSE 'queued' END,
       CASE WHEN room.free THEN nextval('ready_seq') END,
       CAST(:priority AS int)
  FROM (SELECT NOT EXISTS (SELECT 1 FROM shards
                            WHERE pool = :pool AND tenant_id = :tenant AND state = 'queued')
           AND (SELECT count(*) FROM (SELECT 1 FROM shards
                                       WHERE pool = :pool AND tenant_id = :tenant
                                         AND state = 'ready' LIMIT :window) taken) < :window
               AS free) room
"""
# Nobody of the tenant waits and its window has room: no need to wait for a dispatcher.

_GENERATION = text(f"""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, metadata,
                      priority, shards_open, rows_total, expires_at)
    VALUES (:id, :tenant, 'generate', 'queued', :stage, :endpoint, :model, CAST(:spec AS json),
            CAST(:metadata AS json), :priority, 1, 1,
            clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))))
{_SHARD}
""")

_BATCH = text(f"""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec, metadata, priority,
                      input_file_id, shards_open, expires_at)
    VALUES (:id, :tenant, 'batch', 'queued', :stage, :endpoint, CAST(:spec AS json),
            CAST(:metadata AS json), :priority, :input_file_id, 1,
            clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))))
{_SHARD}
""")

_REMEMBER = text("""
INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, job_id)
VALUES (:tenant, :route, :key, :fingerprint, :id)
""")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's promise that a repeated request is the same one."""

    route: str
    key: str
    fingerprint: bytes


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
) -> None:
    """Queues one inference call; ``body`` is already validated (a str is taken as its JSON).

    Raises sqlalchemy's IntegrityError when the idempotency key is taken: roll back and read it.
    """
    connection.execute(
        _GENERATION,
        {
            "id": job_id,
            "tenant": tenant_id,
            "pool": pool,
            "stage": Stage.GENERATE,
            "endpoint": endpoint,
            "model": model,
            "spec": body if isinstance(body, str) else json.dumps(body),
            "metadata": None if metadata is None else json.dumps(metadata),
            "priority": priority,
            "seconds": expires_in_seconds,
            "window": window,
        },
    )
    _remember(connection, tenant_id, job_id, idempotency)


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
) -> None:
    """Queues a batch: its first shard validates the input on an upkeep worker."""
    connection.execute(
        _BATCH,
        {
            "id": job_id,
            "tenant": tenant_id,
            "pool": "upkeep",
            "stage": Stage.VALIDATE,
            "endpoint": endpoint,
            "input_file_id": input_file_id,
            "spec": json.dumps(spec),
            "metadata": None if metadata is None else json.dumps(metadata),
            "priority": priority,
            "seconds": expires_in_seconds,
            "window": window,
        },
    )
    _remember(connection, tenant_id, job_id, idempotency)


def _remember(
    connection: Connection, tenant_id: str, job_id: str, idempotency: Idempotency | None
) -> None:
    if idempotency is not None:
        connection.execute(
            _REMEMBER,
            {
                "tenant": tenant_id,
                "route": idempotency.route,
                "key": idempotency.key,
                "fingerprint": idempotency.fingerprint,
                "id": job_id,
            },
        )
