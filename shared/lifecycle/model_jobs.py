"""Jobs about models that are there: evaluations, which measure them, and optimisations, which make
smaller ones of them. One shard each, of stage ``train``, that starts over when it is tried again;
how it ends is ``model_job_ends``'.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.quotas import hold
from shared.lifecycle.submit import SHARD
from shared.lifecycle.used_keys import Idempotency, remember
from shared.pools import TRAIN
from shared.specs.model_jobs import EvaluationSpec, OptimizationSpec
from shared.states import Stage

EVALUATION, OPTIMIZATION = "evaluation", "optimization"
"""Kinds of jobs."""
EVALUATIONS, OPTIMIZATIONS = "/v1/evaluations", "/v1/models/optimize"
"""Their endpoints."""

_SUBMIT = text(f"""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, metadata, priority,
                      input_file_id, validation_file_id, detail, shards_open, rows_total)
    VALUES (:id, :tenant, :kind, 'queued', :stage, :endpoint, :model, CAST(:spec AS json),
            NULL, :priority, :file, :validation_file, CAST(:detail AS json), 1, 1)
), needed AS (
    INSERT INTO job_models (job_id, tenant_id, model_id)
    SELECT :id, :tenant, named FROM unnest(CAST(:models AS text[])) AS n (named)
)
{SHARD}
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOptimization:
    """An optimisation to be queued."""

    job_id: str
    tenant_id: str
    model: str
    spec: OptimizationSpec
    models: Sequence[str] = ()
    """Every model that it reads: ``model``, and what that is loaded onto."""
    file_id: str | None = None
    """Of the data to compare by, held for as long as the job is open …"""
    validation_file_id: str | None = None
    """… and the second file of the fine-tuning whose data these are."""
    detail: dict[str, Any] = field(default_factory=dict)


def submit_evaluation(
    connection: Connection,
    *,
    job_id: str,
    tenant_id: str,
    spec: EvaluationSpec,
    window: int,
    detail: dict[str, Any] | None = None,
    idempotency: Idempotency | None = None,
    priority: int = 0,
) -> None:
    """Queues an evaluation of models and a file that the caller has seen (and holds, see
    ``hold_model`` and ``hold_file``). With ``detail["gate"]``, ``alias_gates.decide_gate`` hears
    what was found.

    Raises sqlalchemy's IntegrityError when the idempotency key is taken: roll back and read it.
    """
    connection.execute(
        _SUBMIT,
        {
            **_first_shard(job_id, tenant_id, priority, window),
            "kind": EVALUATION,
            "endpoint": EVALUATIONS,
            "model": spec.models[0],
            "models": spec.models,
            "spec": spec.model_dump_json(exclude_none=True),
            "file": spec.file,
            "validation_file": None,
            "detail": json.dumps(detail or {}),
        },
    )
    hold(connection, tenant_id, [job_id])
    remember(connection, tenant_id, job_id, idempotency)


def submit_optimization(
    connection: Connection,
    new: NewOptimization,
    *,
    window: int,
    idempotency: Idempotency | None = None,
) -> None:
    """Queues an optimisation of a model that the caller holds.

    Raises sqlalchemy's IntegrityError when the idempotency key is taken: roll back and read it.
    """
    connection.execute(
        _SUBMIT,
        {
            **_first_shard(new.job_id, new.tenant_id, 0, window),
            "kind": OPTIMIZATION,
            "endpoint": OPTIMIZATIONS,
            "model": new.model,
            "models": sorted({new.model, *new.models}),
            "spec": new.spec.model_dump_json(exclude_none=True),
            "file": new.file_id,
            "validation_file": new.validation_file_id,
            "detail": json.dumps(new.detail),
        },
    )
    hold(connection, new.tenant_id, [new.job_id])
    remember(connection, new.tenant_id, new.job_id, idempotency)


def _first_shard(job_id: str, tenant_id: str, priority: int, window: int) -> dict[str, Any]:
    return {
        "id": job_id,
        "tenant": tenant_id,
        "pool": TRAIN,
        "stage": Stage.TRAIN,
        "priority": priority,
        "window": window,
    }
