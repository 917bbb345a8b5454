"""Productions: a job that turns a template and a table into copy, and the batches that it has run.

Its shard of stage ``validate`` judges template and data. The next one, of stage ``produce``, is
claimed whenever there is something to read: each time it goes over the data once, adds the next
batch and puts itself back, blocked until that has ended (``production_rounds``), or writes the
output and ends the job (``production_end``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import Held
from shared.lifecycle.quotas import hold
from shared.lifecycle.stages import BadLine
from shared.lifecycle.submit import SHARD
from shared.lifecycle.tuning_close import already, close, digest
from shared.lifecycle.tuning_events import announce
from shared.lifecycle.used_keys import Idempotency, remember
from shared.pools import UPKEEP
from shared.specs.productions import ENDPOINT, KIND
from shared.states import JobState, ShardState, Stage, guard

_SUBMIT = text(f"""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, metadata, priority,
                      input_file_id, validation_file_id, detail, shards_open, expires_at)
    VALUES (:id, :tenant, :kind, 'queued', :stage, :endpoint, :model, CAST(:spec AS json),
            CAST(:metadata AS json), :priority, :file, :audience_file, CAST(:detail AS json), 1,
            clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision)))
)
{SHARD}
""")

_ADD = text("INSERT INTO productions (job_id, tenant_id) VALUES (:job, :tenant)")

_NEED_MODELS = text("""
INSERT INTO job_models (job_id, tenant_id, model_id)
SELECT :job, :tenant, m.id FROM unnest(CAST(:models AS text[])) AS m (id)
""")

_BEGIN = text("""
WITH job AS (
    UPDATE jobs SET stage = :stage, shards_open = 1, rows_total = :lines, version = version + 1,
           in_progress_at = clock_timestamp()
     WHERE id = :job RETURNING id, tenant_id, priority
), found AS (
    UPDATE productions SET rows = :rows, lines = :lines, phases = :phases,
           found = CAST(:found AS json)
     WHERE job_id = :job
)
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, ready_seq, priority)
SELECT id, tenant_id, :pool, :stage, 0, 'ready', nextval('ready_seq'), priority FROM job
""")

_FOUND = text("""
UPDATE productions SET rows = :rows, lines = :lines, phases = :phases WHERE job_id = :job
""")

_REJECT = text(f"""
UPDATE jobs j
   SET state = 'failed', shards_open = 0, errors = CAST(:errors AS json), error_code = :code,
       error_message = :message, error_param = :param, version = j.version + 1,
       ended_at = clock_timestamp()
 WHERE j.id = :job AND {guard("j.state", JobState.FAILED)}
""")

_END_ESTIMATE = text(f"""
UPDATE jobs j
   SET state = 'succeeded', shards_open = 0, rows_total = :lines, result = CAST(:result AS json),
       progress = 1, version = j.version + 1, ended_at = clock_timestamp()
 WHERE j.id = :job AND {guard("j.state", JobState.SUCCEEDED)}
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProduction:
    """A production to be queued; its models and its data file are held by the caller."""

    job_id: str
    tenant_id: str
    spec: str
    """A ``ProductionSpec`` as JSON."""
    models: Sequence[str]
    """Every model that it asks; they stay until it has ended. The first is shown as the job's."""
    data_file_id: str
    audience_file_id: str | None = None
    """The table of its audiences, where it has one; it stays until the job ends, as the data do."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] | None = None
    priority: int = 0
    expires_in_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionSize:
    """What validation counted."""

    rows: int
    lines: int
    """Of the output."""
    phases: int
    """Batches of a round."""


def submit_production(
    connection: Connection,
    new: NewProduction,
    *,
    window: int,
    idempotency: Idempotency | None = None,
) -> None:
    """Queues a production: its first shard judges template and data on an upkeep worker. What its
    batches may consume is held when each of them is validated.

    Raises QuotaExceeded or BudgetExceeded when the tenant may have no more work, and sqlalchemy's
    IntegrityError when the idempotency key is taken: roll back and read it.
    """
    values = {
        "id": new.job_id,
        "tenant": new.tenant_id,
        "kind": KIND,
        "stage": Stage.VALIDATE,
        "endpoint": ENDPOINT,
        "model": new.models[0],
        "spec": new.spec,
        # As it is written, so that JSONB takes it: lists of jobs ask for labels.
        "metadata": None if new.metadata is None else json.dumps(new.metadata, ensure_ascii=False),
        "priority": new.priority,
        "file": new.data_file_id,
        "audience_file": new.audience_file_id,
        "detail": json.dumps(dict(new.detail)),
        "seconds": new.expires_in_seconds,
        "pool": UPKEEP,
        "window": window,
    }
    connection.execute(_SUBMIT, values)
    connection.execute(_ADD, {"job": new.job_id, "tenant": new.tenant_id})
    needed = {"job": new.job_id, "tenant": new.tenant_id, "models": sorted(set(new.models))}
    connection.execute(_NEED_MODELS, needed)
    announce(connection, new.job_id, f"{KIND}.created")
    hold(connection, new.tenant_id, [new.job_id])
    remember(connection, new.tenant_id, new.job_id, idempotency)


def open_production(
    connection: Connection,
    session_id: str,
    held: Held,
    size: ProductionSize,
    found: Mapping[str, Any],
) -> bool:
    """Lets a production begin whose template and data were found good. ``found`` is what its
    passes go on from, as JSON. False means that this worker is a zombie."""
    sha256 = digest("open", asdict(size))
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    connection.execute(
        _BEGIN,
        {
            "job": shard.job_id,
            "stage": Stage.PRODUCE,
            "pool": UPKEEP,
            "found": json.dumps(dict(found)),
            **asdict(size),
        },
    )
    announce(connection, shard.job_id, f"{KIND}.validated", asdict(size))
    return True


def reject_production(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    errors: Sequence[BadLine],
    bad_rows: int,
) -> bool:
    """Fails a production whose data are not what its template needs; ``errors`` may be the first
    of ``bad_rows``, of which a row is the ``line``. False means that this worker is a zombie."""
    listed = [asdict(error) for error in errors]
    sha256 = digest("rejected", bad_rows, listed)
    found = f"{bad_rows} bad row{'s' if bad_rows != 1 else ''}"
    first = errors[0]
    why = {"code": "invalid_input_file", "message": f"the data were rejected: {found}"}
    if first.line is None:  # about the whole of it
        why = {"code": first.code, "message": first.message}
    shard = close(connection, session_id, held, ShardState.FAILED, sha256, **why)
    if shard is None:
        return already(connection, session_id, held, ShardState.FAILED, sha256)
    connection.execute(
        _REJECT,
        {"job": shard.job_id, "errors": json.dumps(listed), "param": first.param, **why},
    )
    announce(connection, shard.job_id, f"{KIND}.failed", why)
    return True


def finish_production_estimate(
    connection: Connection,
    session_id: str,
    held: Held,
    size: ProductionSize,
    estimate: Mapping[str, Any],
) -> bool:
    """Ends a production that only wanted to know what it would take. Idempotent for the same
    estimate; False means that this worker is a zombie."""
    result = json.dumps({"estimate": dict(estimate)}, sort_keys=True)
    sha256 = digest("estimate", result)
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    connection.execute(_FOUND, {"job": shard.job_id, **asdict(size)})
    connection.execute(_END_ESTIMATE, {"job": shard.job_id, "lines": size.lines, "result": result})
    announce(connection, shard.job_id, f"{KIND}.completed")
    return True
