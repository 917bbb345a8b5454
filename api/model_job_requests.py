"""From a body to a job about models: checked against the tenant's models and files, then queued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from api import parsing
from api.idempotency import Once
from api.services import Services
from shared import lifecycle
from shared.db.aliases import hold_named, model_named
from shared.db.files import hold_file
from shared.db.model_jobs import TrainedOn, trained_on
from shared.db.models import Model
from shared.errors import (
    InvalidRequest,
    ModelNotFound,
    ModelNotMeasurable,
    ModelNotOptimizable,
    NotFound,
)
from shared.ids import new_evaluation_id, new_optimization_id
from shared.lifecycle import NewOptimization
from shared.pools import TRAIN
from shared.specs.aliases import is_alias_name
from shared.specs.model_jobs import (
    METRICS,
    EvaluationSpec,
    Merge,
    OptimizationSpec,
    evaluations_of,
)

PURPOSES = frozenset({"fine-tune", "evals"})
"""Of files that models are measured on."""

Queue = Callable[[Connection, lifecycle.Idempotency | None], str]


def submit_model_job(services: Services, tenant_id: str, once: Once, queue: Queue) -> str:
    """Queues what ``queue`` checks and submits, unless the key made a job already; returns the
    job's id. Raises IdempotencyMismatch, and what ``queue`` raises."""
    first = once.first_use(services, tenant_id)
    if first is not None:
        return first
    with services.transaction() as connection:
        job_id = queue(connection, once.for_submit())
    services.bell.ring(TRAIN)
    return job_id


# --- evaluations ------------------------------------------------------------------------------


def queue_evaluation(
    connection: Connection,
    tenant_id: str,
    spec: EvaluationSpec,
    once: lifecycle.Idempotency | None,
    *,
    window: int,
) -> str:
    """Raises ModelNotFound, ModelNotMeasurable, NotFound for a file, InvalidRequest."""
    models = check_evaluation(connection, tenant_id, spec)
    named = {asked: model.id for asked, model in zip(spec.models, models, strict=True)}
    aliases = {asked: model_id for asked, model_id in named.items() if asked != model_id}
    job_id = new_evaluation_id()
    lifecycle.submit_evaluation(
        connection,
        job_id=job_id,
        tenant_id=tenant_id,
        spec=spec.model_copy(update={"models": list(named.values())}),
        window=window,
        detail={"aliases": aliases} if aliases else {},
        idempotency=once,
    )
    return job_id


def check_evaluation(connection: Connection, tenant_id: str, spec: EvaluationSpec) -> list[Model]:
    """The models, and the file, held until the transaction ends; a model may be named by an alias.

    Raises as ``queue_evaluation`` does.
    """
    held = {
        name: require_model(connection, tenant_id, name, "models")
        for name in _in_order(connection, tenant_id, spec.models)
    }
    models = [held[name] for name in spec.models]
    if len({model.id for model in models}) < len(models):
        raise InvalidRequest("'models' names a model twice", param="models")
    recipes = set(METRICS)
    for model in models:
        recipes &= set(_evaluations_of(model, "models"))
    if not recipes:
        message = "these models are measured on examples of different forms"
        raise InvalidRequest(message, param="models")
    require_metric(spec.metric, recipes)
    require_file(connection, tenant_id, spec.file, "file")
    return models


def _in_order(connection: Connection, tenant_id: str, names: Sequence[str]) -> list[str]:
    """By the ids of the models: a training that drops old checkpoints locks them so, and another
    order would let the two wait for each other."""
    aliases = filter(is_alias_name, names)
    found = {name: model_named(connection, tenant_id, name) for name in aliases}
    ids = {name: model.id for name, model in found.items() if model is not None}
    return sorted(names, key=lambda name: ids.get(name, name))


def require_metric(metric: str, recipes: set[str]) -> None:
    known = sorted({name for recipe in recipes for name in METRICS[recipe]})
    if metric not in known:
        raise InvalidRequest(f"'metric' is one of {', '.join(known)}", param="metric")


def require_model(connection: Connection, tenant_id: str, name: str, param: str) -> Model:
    model = hold_named(connection, tenant_id, name) if name.isprintable() else None
    if model is None:
        raise ModelNotFound("there is no such model", param=param)
    return model


def require_file(connection: Connection, tenant_id: str, file_id: str, param: str) -> None:
    file = hold_file(connection, tenant_id, file_id) if parsing.is_id(file_id) else None
    if file is None:
        raise NotFound("there is no such file", param=param)
    if file.purpose not in PURPOSES:
        message = f"the file's purpose is '{file.purpose}', not 'evals' or 'fine-tune'"
        raise InvalidRequest(message, param=param)


def _evaluations_of(model: Model, param: str) -> list[str]:
    found = evaluations_of(model.engine, model.detail.get("recipe"))
    if not found:
        message = f"models of kind '{model.engine}' can't be measured"
        raise ModelNotMeasurable(message, param=param)
    return found


# --- optimisations ----------------------------------------------------------------------------


def queue_optimization(
    connection: Connection,
    tenant_id: str,
    name: str,
    spec: OptimizationSpec,
    once: lifecycle.Idempotency | None,
    *,
    window: int,
) -> str:
    """Raises ModelNotFound, ModelNotOptimizable, NotFound for a file, InvalidRequest."""
    model = require_model(connection, tenant_id, name, "model")
    _require_optimizable(model, spec)
    recipes = evaluations_of(model.engine, model.detail.get("recipe"))
    if spec.metric is not None:
        require_metric(spec.metric, set(recipes))
    detail: dict[str, Any] = {}
    files: tuple[str | None, str | None] = (spec.evaluation_file, None)
    if spec.evaluation_file is not None:
        require_file(connection, tenant_id, spec.evaluation_file, "evaluation_file")
    else:
        found = _require_held_out(connection, tenant_id, model)
        detail["held_out"] = {"job": found.job_id, "spec": found.spec}
        files = (found.training_file, found.validation_file)
    job_id = new_optimization_id()
    new = NewOptimization(
        job_id=job_id,
        tenant_id=tenant_id,
        model=model.id,
        spec=spec,
        models=[model.base_model] if model.adapter and model.base_model else [],
        file_id=files[0],
        validation_file_id=files[1],
        detail=detail,
    )
    lifecycle.submit_optimization(connection, new, window=window, idempotency=once)
    return job_id


def _require_optimizable(model: Model, spec: OptimizationSpec) -> None:
    how = spec.method.type
    if not evaluations_of(model.engine, None):
        message = f"models of kind '{model.engine}' can't be made smaller"
        raise ModelNotOptimizable(message, param="model")
    if isinstance(spec.method, Merge) and not model.adapter:
        raise ModelNotOptimizable("it is no adapter: there is nothing to merge", param="model")
    done = model.detail.get("optimization") or {}
    if done.get("type") == "quantize":
        message = f"its weights are in {done.get('scheme')} already: {how} what it was made of"
        raise ModelNotOptimizable(message, param="model")


def _require_held_out(connection: Connection, tenant_id: str, model: Model) -> TrainedOn:
    """What the model's own fine-tuning held out, or that of the model it was made of."""
    found = trained_on(connection, tenant_id, model.id)
    if found is None:
        message = "'evaluation_file' is required: the data of the model's own fine-tuning are gone"
        if model.job_id is None:
            message = "'evaluation_file' is required: the model has no fine-tuning of its own"
        raise InvalidRequest(message, param="evaluation_file")
    for file_id in (found.training_file, found.validation_file):
        if file_id is not None:
            hold_file(connection, tenant_id, file_id)
    return found
