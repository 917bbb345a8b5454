"""Jobs about models: measured on examples, and made smaller."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, request

from api import job_rendering, model_job_rendering, parsing, rendering
from api.idempotency import once_for
from api.model_job_requests import queue_evaluation, queue_optimization, submit_model_job
from api.rendering import Object
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, query
from api.services import Services
from api.shapes import Evaluation, EvaluationList, Job
from shared.db.jobs import get_job, list_jobs
from shared.db.model_jobs import model_jobs_of
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    ModelNotFound,
    ModelNotMeasurable,
    ModelNotOptimizable,
    NotFound,
)
from shared.lifecycle.model_jobs import EVALUATION
from shared.specs.model_jobs import EvaluationSpec, OptimizationSpec

EVALUATIONS = "/v1/evaluations"
NOTHING = "there is no such evaluation"

routes = RouteTable("Models: measuring", "Models measured on examples, and made smaller")


@routes.post(
    EVALUATIONS,
    body=EvaluationSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={202: Evaluation},
    errors=(ModelNotFound, ModelNotMeasurable, NotFound, IdempotencyMismatch),
)
def create_evaluation(services: Services, tenant_id: str) -> Response:
    """Measures up to 8 models on one file of examples, each as it is served."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(f"POST {EVALUATIONS}", parsing.idempotency_key(request), document)
    window = services.settings.ready_window
    job_id = submit_model_job(
        services,
        tenant_id,
        once,
        lambda connection, key: queue_evaluation(
            connection, tenant_id, parsing.validate(EvaluationSpec, document), key, window=window
        ),
    )
    headers = {"Location": f"{EVALUATIONS}/{job_id}", "Retry-After": "1"}
    return json_reply(_show(services, tenant_id, job_id), HTTPStatus.ACCEPTED, headers)


@routes.get(EVALUATIONS, parameters=(LIMIT, AFTER), answers={200: EvaluationList})
def list_evaluations(services: Services, tenant_id: str) -> Response:
    """Evaluations, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = list_jobs(connection, tenant_id, kinds=[EVALUATION], after=after, limit=limit + 1)
        found = model_jobs_of(connection, tenant_id, [row.id for row in rows])
    shown = [model_job_rendering.evaluation(row, found[row.id]) for row in rows if row.id in found]
    return json_reply(rendering.page(shown, limit))


@routes.get(
    f"{EVALUATIONS}/<evaluation_id>",
    parameters=(
        query("wait", "Answer once it has ended, or after so many seconds", type="number"),
    ),
    answers={200: Evaluation},
)
def retrieve_evaluation(services: Services, tenant_id: str, evaluation_id: str) -> Response:
    """An evaluation; with its numbers, once it has succeeded."""
    shown = _show(services, tenant_id, evaluation_id)
    seconds = parsing.wait_seconds(request, services.settings.max_wait_seconds)
    if seconds and not rendering.has_ended(shown["status"]):
        services.waiter.wait(tenant_id, evaluation_id, seconds)
        shown = _show(services, tenant_id, evaluation_id)
    return json_reply(shown)


@routes.post(f"{EVALUATIONS}/<evaluation_id>/cancel", answers={200: Evaluation}, errors=(Conflict,))
def cancel_evaluation(services: Services, tenant_id: str, evaluation_id: str) -> Response:
    """Asks an evaluation to stop; what was measured so far is dropped. Asking again changes
    nothing."""
    _known(evaluation_id)
    cancel_job(services, tenant_id, evaluation_id, kind=EVALUATION)
    return json_reply(_show(services, tenant_id, evaluation_id))


@routes.post(
    "/v1/models/<path:model_id>/optimize",
    body=OptimizationSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={202: Job},
    errors=(ModelNotFound, ModelNotOptimizable, NotFound, IdempotencyMismatch),
)
def optimize_model(services: Services, tenant_id: str, model_id: str) -> Response:
    """Makes a smaller model of this one: an adapter merged, weights in 8 or 4 bits, weights left
    out. The job's result is a table of size, memory, speed and quality, before and after; a model
    that is too much worse is not offered, and the job fails with `quality_dropped`."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    promise: dict[str, Any] = {"model": model_id, "body": document}
    once = once_for("POST /v1/models/optimize", parsing.idempotency_key(request), promise)
    window = services.settings.ready_window
    job_id = submit_model_job(
        services,
        tenant_id,
        once,
        lambda connection, key: queue_optimization(
            connection,
            tenant_id,
            model_id,
            parsing.validate(OptimizationSpec, document),
            key,
            window=window,
        ),
    )
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, job_id)
    if found is None:
        raise NotFound("there is no such job")
    headers = {"Location": f"/v1/jobs/{job_id}", "Retry-After": "1"}
    return json_reply(job_rendering.job_with_result(*found), HTTPStatus.ACCEPTED, headers)


def _show(services: Services, tenant_id: str, job_id: str) -> Object:
    with services.autocommit.connect() as connection:
        found = get_job(connection, tenant_id, _known(job_id))
        job = model_jobs_of(connection, tenant_id, [job_id]).get(job_id) if found else None
    if found is None or job is None or found[0].kind != EVALUATION:
        raise NotFound(NOTHING)
    return model_job_rendering.evaluation(found[0], job)


def _known(job_id: str) -> str:
    if not parsing.is_id(job_id):
        raise NotFound(NOTHING)
    return job_id
