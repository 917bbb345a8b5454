"""From a body to a gate: an evaluation of the candidate and the holder, submitted together."""

from __future__ import annotations

from sqlalchemy import Connection

from api.idempotency import Once
from api.model_job_requests import check_evaluation, submit_model_job
from api.services import Services
from shared import lifecycle
from shared.errors import PressrunError
from shared.ids import new_evaluation_id
from shared.lifecycle.aliases import Expected, Gate, begin_gate
from shared.specs.aliases import AliasMoveSpec, AliasRollbackSpec, GateSpec
from shared.specs.model_jobs import EvaluationSpec

_FIELDS = {"models": "model", "metric": "gate.metric", "file": "gate.evaluation_file"}
"""Of an evaluation, and what a gate calls them."""


def expected_of(asked: AliasMoveSpec | AliasRollbackSpec) -> Expected | None:
    """Who has to hold the alias; a null that was given says that nobody may."""
    given = "expected_model" in asked.model_fields_set
    return Expected(asked.expected_model) if given else None


def submit_gate(
    services: Services, tenant_id: str, name: str, asked: AliasMoveSpec, once: Once
) -> str:
    """Starts the evaluation that the gate in ``asked`` wants, unless the key has started one
    already; gives its id.

    Raises IdempotencyMismatch, NotFound for the alias and the file, ModelNotFound,
    ModelNotMeasurable, InvalidRequest, and Conflict when another model holds the alias than was
    expected.
    """
    terms = asked.gate
    assert terms is not None  # noqa: S101 - the route has looked

    def queue(connection: Connection, key: lifecycle.Idempotency | None) -> str:
        job_id = new_evaluation_id()
        gate = begin_gate(
            connection,
            tenant_id=tenant_id,
            name=name,
            candidate=asked.model,
            job_id=job_id,
            metric=terms.metric,
            min_improvement=terms.min_improvement,
            expected=expected_of(asked),
        )
        lifecycle.submit_evaluation(
            connection,
            job_id=job_id,
            tenant_id=tenant_id,
            spec=_evaluation(connection, tenant_id, gate, terms),
            window=services.settings.ready_window,
            detail={"gate": gate.as_detail()},
            idempotency=key,
        )
        return job_id

    return submit_model_job(services, tenant_id, once, queue)


def _evaluation(
    connection: Connection, tenant_id: str, gate: Gate, terms: GateSpec
) -> EvaluationSpec:
    spec = EvaluationSpec(
        models=gate.models,
        file=terms.evaluation_file,
        metric=terms.metric,
        direction=terms.direction,
        max_examples=terms.max_examples,
    )
    try:
        check_evaluation(connection, tenant_id, spec)
    except PressrunError as error:
        raise type(error)(error.message, param=_FIELDS.get(error.param or "")) from None
    return spec
