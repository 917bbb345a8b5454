"""Imports: a job with one shard, which ends with a model of the tenant's or with what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import Held
from shared.lifecycle.quotas import hold
from shared.lifecycle.stages import BadLine
from shared.lifecycle.submit import SHARD
from shared.lifecycle.tuned_models import NewModel, add_model
from shared.lifecycle.tuning_close import already, close, digest
from shared.lifecycle.tuning_events import announce
from shared.lifecycle.used_keys import Idempotency, remember
from shared.pools import UPKEEP
from shared.specs.imports import ENDPOINT, KIND
from shared.states import JobState, ShardState, Stage, guard

_SUBMIT = text(f"""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, metadata, priority,
                      input_file_id, shards_open, rows_total)
    VALUES (:id, :tenant, :kind, 'queued', :stage, :endpoint, :model, CAST(:spec AS json),
            CAST(:metadata AS json), :priority, :file, 1, 1))
{SHARD}
""")

_NEED = text("""
INSERT INTO job_models (job_id, tenant_id, model_id) VALUES (:job, :tenant, :model)
""")

_SUCCEED = text(f"""
UPDATE jobs j
   SET state = 'succeeded', result = CAST(:result AS json), detail = CAST(:detail AS json),
       progress = 1, rows_completed = 1, shards_open = 0, version = j.version + 1,
       ended_at = clock_timestamp()
 WHERE j.id = :job AND {guard("j.state", JobState.SUCCEEDED)}
""")

_FAIL = text(f"""
UPDATE jobs j
   SET state = 'failed', errors = CAST(:errors AS json), error_code = :code,
       error_message = :message, error_param = :param, rows_failed = 1, shards_open = 0,
       version = j.version + 1, ended_at = clock_timestamp()
 WHERE j.id = :job AND {guard("j.state", JobState.FAILED)}
""")


def submit_import(
    connection: Connection,
    *,
    job_id: str,
    tenant_id: str,
    file_id: str,
    base_model: str | None,
    spec: str,
    metadata: dict[str, str] | None,
    window: int,
    idempotency: Idempotency | None = None,
) -> None:
    """Queues the import of a ZIP, which stays for as long as the job is open; so does the base
    model. ``spec`` is the validated body as JSON.

    Raises sqlalchemy's IntegrityError when the idempotency key is taken: roll back and read it.
    """
    connection.execute(
        _SUBMIT,
        {
            "id": job_id,
            "tenant": tenant_id,
            "kind": KIND,
            "pool": UPKEEP,
            "stage": Stage.VALIDATE,
            "endpoint": ENDPOINT,
            "model": base_model,
            "spec": spec,
            # As it is written, so that JSONB takes it: lists of jobs ask for labels.
            "metadata": None if metadata is None else json.dumps(metadata, ensure_ascii=False),
            "priority": 0,
            "file": file_id,
            "window": window,
        },
    )
    if base_model is not None:
        values = {"job": job_id, "tenant": tenant_id, "model": base_model}
        connection.execute(_NEED, values)
    announce(connection, job_id, f"{KIND}.created")
    hold(connection, tenant_id, [job_id])
    remember(connection, tenant_id, job_id, idempotency)


def finish_import(connection: Connection, session_id: str, held: Held, model: NewModel) -> bool:
    """Offers the model to its tenant and ends the job. Idempotent for the same bytes; False means
    that this worker is a zombie and must drop it."""
    weights = sorted([file.path, file.sha256] for file in model.files)
    sha256 = digest(KIND, model.id, weights)
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    add_model(connection, shard.tenant_id, shard.job_id, model)
    result: dict[str, Any] = {"model": model.id, "bytes": model.bytes}
    connection.execute(
        _SUCCEED,
        {
            "job": shard.job_id,
            "result": json.dumps(result),
            "detail": json.dumps(model.detail),
        },
    )
    announce(connection, shard.job_id, f"{KIND}.succeeded", {"model": model.id})
    return True


def reject_import(
    connection: Connection, session_id: str, held: Held, *, errors: Sequence[BadLine]
) -> bool:
    """Fails a job whose package is refused: the first of ``errors`` is the job's own. False means
    that this worker is a zombie."""
    listed = [asdict(error) for error in errors]
    first = errors[0]
    sha256 = digest("failed", listed)
    why = {"code": first.code, "message": first.message}
    shard = close(connection, session_id, held, ShardState.FAILED, sha256, **why)
    if shard is None:
        return already(connection, session_id, held, ShardState.FAILED, sha256)
    connection.execute(
        _FAIL,
        {"job": shard.job_id, "errors": json.dumps(listed), "param": first.param, **why},
    )
    announce(connection, shard.job_id, f"{KIND}.failed", why)
    return True
