"""The stages of a fine-tuning job: accepted, its data judged, its training opened, or failed.

The data are a shard of their own (stage ``validate``, on upkeep), the training is another (stage
``train``), which ends with ``training_end.finish_training``; or the search for the best of many
trainings is (stage ``sweep``, on upkeep), which ends with ``sweep_end.finish_sweep``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import Held
from shared.lifecycle.pause import block_paused
from shared.lifecycle.quotas import hold
from shared.lifecycle.settle import ClosedShard, end_job
from shared.lifecycle.stages import BadLine, NewFile
from shared.lifecycle.submit import SHARD
from shared.lifecycle.tuning_close import (
    add_result_file,
    already,
    close,
    digest,
    succeed,
)
from shared.lifecycle.tuning_events import CREATED, VALIDATED, announce
from shared.lifecycle.used_keys import Idempotency, remember
from shared.pools import TRAIN, UPKEEP
from shared.quotas import Reservation
from shared.states import JobState, ShardState, Stage, guard

ENDPOINT = "/v1/fine_tuning/jobs"
KIND = "fine_tune"

_SUBMIT = text(f"""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, metadata, priority,
                      input_file_id, validation_file_id, detail, shards_open, rows_total)
    VALUES (:id, :tenant, :kind, 'queued', :stage, :endpoint, :model, CAST(:spec AS json),
            CAST(:metadata AS json), :priority, :training_file, :validation_file,
            CAST(:detail AS json), 1, 1))
{SHARD}
""")


_READ_DETAIL = text("SELECT detail, stop_reason FROM jobs WHERE id = :job FOR UPDATE")

_OPEN_TRAINING = text(f"""
WITH job AS (
    UPDATE jobs j SET state = 'queued', stage = :stage, detail = CAST(:detail AS json),
           in_progress_at = clock_timestamp(), version = j.version + 1
     WHERE j.id = :job AND {guard("j.state", JobState.QUEUED)}
    RETURNING j.id, j.tenant_id, j.priority)
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, priority)
SELECT id, tenant_id, :pool, :stage, 0, 'queued', priority FROM job
""")

_ADD_SWEEP = text("""
INSERT INTO sweeps (job_id, trials, metric, minimize, pruning)
VALUES (:job, :trials, :metric, :minimize, :pruning)
""")


_FAIL = text(f"""
WITH job AS (
    UPDATE jobs j
       SET state = 'failed', errors = CAST(:errors AS json), error_code = :code,
           error_message = :message, error_param = :param, rows_failed = 1, shards_open = 0,
           version = j.version + 1, ended_at = clock_timestamp()
     WHERE j.id = :job AND {guard("j.state", JobState.FAILED)}
    RETURNING j.id, j.tenant_id)
INSERT INTO events (tenant_id, job_id, type, data)
SELECT tenant_id, id, 'fine_tune.failed', CAST(:told AS json) FROM job
""")


@dataclass(frozen=True, slots=True)
class NewSweep:
    """What is searched for."""

    trials: int
    metric: str
    minimize: bool
    pruning: bool


def submit_fine_tune(
    connection: Connection,
    *,
    job_id: str,
    tenant_id: str,
    model: str,
    training_file_id: str,
    spec: str,
    metadata: dict[str, str] | None,
    priority: int = 0,
    window: int,
    validation_file_id: str | None = None,
    detail: dict[str, Any] | None = None,
    idempotency: Idempotency | None = None,
) -> None:
    """Queues a fine-tuning job: its first shard judges the data on an upkeep worker. ``spec`` is
    the validated body as JSON; both files stay for as long as the job is open. ``detail`` is what
    is known of it from the start.

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
            "model": model,
            "spec": spec,
            # As it is written, so that JSONB takes it: lists of these jobs ask for labels.
            "metadata": None if metadata is None else json.dumps(metadata, ensure_ascii=False),
            "detail": json.dumps(detail or {}),
            "priority": priority,
            "training_file": training_file_id,
            "validation_file": validation_file_id,
            "window": window,
        },
    )
    announce(connection, job_id, CREATED, {"model": model})
    hold(connection, tenant_id, [job_id])
    remember(connection, tenant_id, job_id, idempotency)


def open_training(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    found: dict[str, Any],
    card: NewFile | None,
    sweep: NewSweep | None = None,
) -> bool:
    """Opens the training of a job whose data are good, or the ``sweep`` that searches for the best
    of many. ``found`` (counts, labels, estimates) is kept in the job's ``detail["data"]``; ``card``
    describes the data to the tenant. False means that this worker is a zombie.

    Raises QuotaExceeded or BudgetExceeded when the tenant may not have the training."""
    sha256 = digest("train", found, card and card.stored.sha256)
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    detail, stop_reason = connection.execute(_READ_DETAIL, {"job": shard.job_id}).one()
    if stop_reason is not None:  # asked meanwhile; there is no shard left to cancel
        stopped = ClosedShard(
            held.shard_id, shard.job_id, KIND, Stage.VALIDATE, ShardState.CANCELLED
        )
        end_job(connection, stopped)
        return True
    detail["data"] = found
    if card is not None:
        add_result_file(connection, shard.job_id, card)
        detail["card_file_id"] = card.file_id
    pool, stage = (TRAIN, Stage.TRAIN) if sweep is None else (UPKEEP, Stage.SWEEP)
    values = {"job": shard.job_id, "pool": pool, "stage": stage, "detail": json.dumps(detail)}
    connection.execute(_OPEN_TRAINING, values)
    if sweep is not None:
        connection.execute(_ADD_SWEEP, {"job": shard.job_id, **asdict(sweep)})
    else:
        tokens = found.get("estimate", {}).get("trained_tokens") or 0
        hold(connection, shard.tenant_id, [shard.job_id], {0: Reservation(1, tokens)})
    announce(connection, shard.job_id, VALIDATED)
    block_paused(connection, [shard.job_id])
    return True


def reject_training(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    errors: Sequence[BadLine],
    bad_lines: int,
    param: str = "training_file",
) -> bool:
    """Fails a job whose data are not good; ``errors`` may be the first of ``bad_lines``, ``param``
    is the field that names the file. False means that this worker is a zombie."""
    listed = [asdict(error) for error in errors]
    plural = "s" if bad_lines != 1 else ""
    return _fail(
        connection,
        session_id,
        held,
        code="invalid_training_file",
        message=f"the data were rejected: {bad_lines} bad line{plural}",
        param=param,
        errors=listed,
    )


def finish_dry_run(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    estimate: dict[str, Any],
    card: NewFile | None,
) -> bool:
    """Ends a job that only wanted to know: ``estimate`` is in its result. False means that this
    worker is a zombie."""
    sha256 = digest("dry_run", estimate, card and card.stored.sha256)
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if card is not None:
        add_result_file(connection, shard.job_id, card)
    result = {
        "fine_tuned_model": None,
        "trained_tokens": None,
        "result_files": [] if card is None else [card.file_id],
        "estimate": estimate,
    }
    detail, _ = connection.execute(_READ_DETAIL, {"job": shard.job_id}).one()
    succeed(connection, shard.job_id, result=result, detail=detail | {"data": estimate})
    return True


def fail_training(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    code: str,
    message: str,
    param: str | None = None,
) -> bool:
    """Fails the job for a reason that another try would not change, at either stage. False means
    that this worker is a zombie."""
    return _fail(connection, session_id, held, code=code, message=message, param=param)


def _fail(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    code: str,
    message: str,
    param: str | None,
    errors: list[dict[str, Any]] | None = None,
) -> bool:
    sha256 = digest("failed", code, message, errors)
    why = {"code": code, "message": message}
    shard = close(connection, session_id, held, ShardState.FAILED, sha256, **why)
    if shard is None:
        return already(connection, session_id, held, ShardState.FAILED, sha256)
    connection.execute(
        _FAIL,
        {
            "job": shard.job_id,
            "errors": None if errors is None else json.dumps(errors),
            "param": param,
            "told": json.dumps(why),
            **why,
        },
    )
    return True
