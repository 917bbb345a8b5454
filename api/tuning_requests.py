"""From a body to a fine-tuning job: checked against the tenant's models and files, then queued."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from api import parsing
from api.idempotency import Once
from api.requests import Metadata, RequestBody
from api.services import Services
from api.webhook_requests import JobWebhookBody, job_webhook, take_webhook
from shared import lifecycle
from shared.db.aliases import hold_named
from shared.db.files import hold_file
from shared.db.models import Model
from shared.errors import InvalidRequest, ModelNotFound, ModelNotTunable, NotFound
from shared.ids import new_tuning_id
from shared.pools import UPKEEP
from shared.specs.fine_tuning import FROM_SCRATCH, FineTuningSpec, seed_of
from shared.specs.productions import OUTPUT_PURPOSE
from shared.specs.sweep_space import check_sweep

PURPOSE = "fine-tune"
FAKE = "fake"
_CLASSIFIED = frozenset({"text", "embedding", "classifier"})
TUNABLE: dict[str, frozenset[str]] = {
    "supervised": frozenset({"text"}),
    "dpo": frozenset({"text"}),
    "text_classification": _CLASSIFIED,
    "token_classification": _CLASSIFIED,
    "text_to_image": frozenset({"image"}),
}
"""Engines of the models that a recipe starts from; the others go on from models of their own."""


class _Labels(RequestBody):
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class TuningSubmission:
    """A fine-tuning job, well-formed, that may be queued."""

    job_id: str
    spec: FineTuningSpec
    stored: dict[str, Any]
    """The spec as it is kept: what was given, and a seed."""
    webhook: JobWebhookBody | None = None


def read_tuning(document: Any) -> TuningSubmission:
    """Raises InvalidFields with every field at fault, or InvalidRequest."""
    document, webhook = take_webhook(document)
    spec = parsing.validate(FineTuningSpec, document)
    check_sweep(spec)
    parsing.validate(_Labels, {"metadata": spec.metadata})
    if any("\0" in text for pair in (spec.metadata or {}).items() for text in pair):
        raise InvalidRequest("'metadata' must be text", param="metadata")
    job_id = new_tuning_id()
    stored = spec.model_dump(mode="json", exclude_unset=True)
    stored["seed"] = seed_of(spec, job_id)
    return TuningSubmission(job_id, spec, stored, webhook)


def submit_tuning(
    services: Services, tenant_id: str, once: Once, make: Callable[[], TuningSubmission]
) -> str:
    """Queues what ``make`` reads, unless the key made a job already; returns the job's id.

    Raises IdempotencyMismatch, ModelNotFound, ModelNotTunable, NotFound for a file, InvalidRequest.
    """
    first = once.first_use(services, tenant_id)
    if first is not None:
        return first
    submission = make()
    webhook = job_webhook(services, tenant_id, submission.webhook)
    with services.transaction() as connection:
        _queue(connection, services, tenant_id, submission, once)
        lifecycle.attach_webhook(connection, submission.job_id, webhook)
    services.bell.ring(UPKEEP)
    return submission.job_id


def _queue(
    connection: Connection,
    services: Services,
    tenant_id: str,
    submission: TuningSubmission,
    once: Once,
) -> None:
    spec = submission.spec
    base = require_base(connection, tenant_id, spec)
    _require_file(connection, tenant_id, spec.training_file, "training_file")
    if spec.validation_file is not None:
        _require_file(connection, tenant_id, spec.validation_file, "validation_file")
    model = spec.model if base is None else base.id
    lifecycle.submit_fine_tune(
        connection,
        job_id=submission.job_id,
        tenant_id=tenant_id,
        model=model,
        training_file_id=spec.training_file,
        validation_file_id=spec.validation_file,
        spec=json.dumps(submission.stored | {"model": model}),
        detail=_detail(spec.model, base),
        metadata=spec.metadata,
        priority=spec.priority,
        window=services.settings.ready_window,
        idempotency=once.for_submit(),
    )


def _detail(asked: str, base: Model | None) -> dict[str, Any]:
    if base is None:
        return {}
    lineage = {"lineage": [base.id, *base.detail.get("parents", [])]}
    return lineage if base.id == asked else lineage | {"alias": asked, "models": {asked: base.id}}


def require_base(connection: Connection, tenant_id: str, spec: FineTuningSpec) -> Model | None:
    """The model to start from, or the one that holds the alias of that name; held until the
    transaction ends. None for a recipe that starts from nothing. Raises ModelNotFound or
    ModelNotTunable."""
    if spec.recipe in FROM_SCRATCH and spec.model == spec.recipe:
        return None
    known = spec.model.isprintable()
    model = hold_named(connection, tenant_id, spec.model) if known else None
    if model is None:
        raise ModelNotFound("there is no such model", param="model")
    if not _is_tunable(model, spec.recipe):
        raise ModelNotTunable(
            f"the recipe '{spec.recipe}' can't start from {_kind_of(model)}", param="model"
        )
    return model


def _is_tunable(model: Model, recipe: str) -> bool:
    if model.engine == FAKE:
        return True
    if recipe in FROM_SCRATCH:
        return model.job_id is not None and model.detail.get("recipe") == recipe
    return model.engine in TUNABLE[recipe] and not _is_quantized(model)


def _is_quantized(model: Model) -> bool:
    """Weights in whole numbers have no gradients."""
    made: dict[str, Any] = model.detail.get("optimization") or {}
    return made.get("type") == "quantize"


def _kind_of(model: Model) -> str:
    made = model.detail.get("recipe")
    return f"a model that the recipe '{made}' made" if made else f"a model of kind '{model.engine}'"


def _require_file(connection: Connection, tenant_id: str, file_id: str, param: str) -> None:
    file = hold_file(connection, tenant_id, file_id) if parsing.is_id(file_id) else None
    if file is None:
        raise NotFound("there is no such file", param=param)
    if file.purpose not in (PURPOSE, OUTPUT_PURPOSE):
        raise InvalidRequest(
            f"the file's purpose is '{file.purpose}', not '{PURPOSE}'", param=param
        )
