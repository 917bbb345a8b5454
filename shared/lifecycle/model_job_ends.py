"""How evaluations and optimisations end: numbers, a smaller model, or why not; behind the fence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import Held
from shared.lifecycle.model_jobs import EVALUATION, EVALUATIONS, OPTIMIZATIONS
from shared.lifecycle.stages import BadLine, NewFile
from shared.lifecycle.tuned_models import NewModel, add_model
from shared.lifecycle.tuning_close import add_result_file, already, close, digest
from shared.lifecycle.usage import UsageLine, add_usage
from shared.specs.model_jobs import EvaluationSpec
from shared.states import JobState, ShardState, guard

QUALITY_DROPPED = "quality_dropped"

_READ_JOB = text("""
SELECT tenant_id, model, spec, detail FROM jobs WHERE id = :job FOR UPDATE
""")

_END = text(f"""
WITH job AS (
    UPDATE jobs j
       SET state = :state, result = CAST(:result AS json), error_code = :code,
           error_message = :message, error_param = :param, errors = CAST(:errors AS json),
           progress = CASE :state WHEN 'succeeded' THEN 1 ELSE j.progress END,
           rows_completed = CASE :state WHEN 'succeeded' THEN 1 ELSE 0 END,
           rows_failed = CASE :state WHEN 'failed' THEN 1 ELSE 0 END,
           input_tokens = :tokens, shards_open = 0, version = j.version + 1,
           ended_at = clock_timestamp()
     WHERE j.id = :job AND {guard("j.state", JobState.SUCCEEDED)}
    RETURNING j.id, j.tenant_id, j.kind, j.state)
INSERT INTO events (tenant_id, job_id, type, data)
SELECT tenant_id, id, kind || '.' || state, CAST(:told AS json) FROM job
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMeasured:
    """What an evaluation has found about one model."""

    model: str
    values: dict[str, float | None]
    """By metric; None for one that is no finite number."""
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationEnd:
    """What an evaluation has found."""

    measured: Sequence[ModelMeasured]
    """In the order in which the models were named."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationEnd:
    """What an optimisation has made; all objects are stored."""

    table: dict[str, Any]
    """Size, memory, speed and quality, before and after."""
    model: NewModel | None
    """None when it is too much worse than what it was made of: the job fails."""
    files: Sequence[NewFile] = ()
    """For the tenant: the reports."""
    message: str = ""
    """Why there is no model."""
    tokens: int = 0


def finish_evaluation(
    connection: Connection, session_id: str, held: Held, end: EvaluationEnd
) -> bool:
    """Ends an evaluation with its numbers, and lets the gate that waits for them decide. Idempotent
    for the same numbers; False means that this worker is a zombie and must drop them."""
    told = [asdict(found) for found in end.measured]
    sha256 = digest(EVALUATION, told)
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    job = connection.execute(_READ_JOB, {"job": shard.job_id}).one()
    spec = EvaluationSpec.model_validate(job.spec)
    values = values_of(end.measured, spec.metric)
    for found in end.measured:
        used = UsageLine(
            EVALUATIONS,
            found.model,
            found.examples,
            found.tokens,
            0,
            compute_seconds=found.seconds or None,
        )
        add_usage(connection, held, used)
    direction = "max" if spec.goes_up else "min"
    result = {
        "metric": spec.metric,
        "direction": direction,
        "best": best_of(values, goes_up=spec.goes_up),
        "examples": max((found.examples for found in end.measured), default=0),
        "seconds": end.seconds,
        "models": [{**item, "value": item["values"].get(spec.metric)} for item in told],
    }
    tokens = sum(found.tokens for found in end.measured)
    _end(connection, shard.job_id, JobState.SUCCEEDED, result=result, tokens=tokens)
    if job.detail.get("gate"):
        from shared.lifecycle.alias_gates import decide_gate

        decide_gate(
            connection,
            tenant_id=job.tenant_id,
            job_id=shard.job_id,
            detail=job.detail,
            values=values,
            direction=direction,
        )
    return True


def values_of(measured: Sequence[ModelMeasured], metric: str) -> dict[str, float]:
    """The metric of each model for which it is a finite number."""
    found = {item.model: item.values.get(metric) for item in measured}
    return {model: value for model, value in found.items() if value is not None}


def best_of(values: dict[str, float], *, goes_up: bool) -> str | None:
    """The model with the best value; of equals, the one that was named first."""
    if not values:
        return None
    pick = max if goes_up else min
    return pick(values, key=values.__getitem__)


def finish_optimization(
    connection: Connection, session_id: str, held: Held, end: OptimizationEnd
) -> bool:
    """Offers the model and ends the job; without a model, the job fails with ``quality_dropped``
    and keeps the table. Idempotent for the same bytes; False means that this worker is a zombie."""
    state = ShardState.SUCCEEDED if end.model is not None else ShardState.FAILED
    sha256 = _sha256_of(end)
    code, message = (None, None) if end.model else (QUALITY_DROPPED, end.message)
    shard = close(connection, session_id, held, state, sha256, code=code, message=message)
    if shard is None:
        return already(connection, session_id, held, state, sha256)
    job = connection.execute(_READ_JOB, {"job": shard.job_id}).one()
    if end.model is not None:
        add_model(connection, shard.tenant_id, shard.job_id, end.model)
    for file in end.files:
        add_result_file(connection, shard.job_id, file)
    add_usage(connection, held, UsageLine(OPTIMIZATIONS, job.model, 1, end.tokens, 0))
    result = {
        "model": None if end.model is None else end.model.id,
        "made_of": job.model,
        **end.table,
        "result_files": [file.file_id for file in end.files],
    }
    _end(
        connection,
        shard.job_id,
        JobState(state),
        result=result,
        tokens=end.tokens,
        code=code,
        message=message,
    )
    return True


def _sha256_of(end: OptimizationEnd) -> str:
    weights = [] if end.model is None else [[file.path, file.sha256] for file in end.model.files]
    results = [[file.filename, file.stored.sha256] for file in end.files]
    return digest(end.model and end.model.id, sorted(weights), results)


def fail_model_job(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    code: str,
    message: str,
    param: str | None = None,
    errors: Sequence[BadLine] = (),
) -> bool:
    """Fails the job for a reason that another try would not change; ``errors`` are bad lines of
    its file. False means that this worker is a zombie."""
    listed = [asdict(error) for error in errors]
    sha256 = digest("failed", code, message, listed)
    shard = close(
        connection, session_id, held, ShardState.FAILED, sha256, code=code, message=message
    )
    if shard is None:
        return already(connection, session_id, held, ShardState.FAILED, sha256)
    _end(
        connection,
        shard.job_id,
        JobState.FAILED,
        code=code,
        message=message,
        param=param,
        errors=listed or None,
    )
    return True


def _end(
    connection: Connection,
    job_id: str,
    state: JobState,
    *,
    result: dict[str, Any] | None = None,
    tokens: int = 0,
    code: str | None = None,
    message: str | None = None,
    param: str | None = None,
    errors: list[dict[str, Any]] | None = None,
) -> None:
    told = {} if code is None else {"code": code, "message": message}
    if result is not None and "model" in result:
        told |= {"model": result["model"]}
    connection.execute(
        _END,
        {
            "job": job_id,
            "state": str(state),
            "result": None if result is None else json.dumps(result),
            "tokens": tokens,
            "code": code,
            "message": message,
            "param": param,
            "errors": None if errors is None else json.dumps(errors),
            "told": json.dumps(told),
        },
    )
