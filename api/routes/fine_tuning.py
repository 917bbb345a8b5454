"""Fine-tuning jobs, in OpenAI's words: create, look, list, cancel, pause, and let go on."""

from __future__ import annotations

from typing import Literal

from flask import Response, request
from sqlalchemy import Connection

from api import fine_tuning_rendering, parsing, rendering
from api.idempotency import once_for
from api.rendering import Object
from api.routes.replies import cancel_job, json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, query
from api.services import Services
from api.shapes import FineTuningJob, FineTuningJobList
from api.tuning_requests import read_tuning, submit_tuning
from api.webhook_requests import FineTuningRequest
from shared import lifecycle
from shared.db.jobs import JobRow, get_job, list_jobs
from shared.db.tuning import Tuning, tunings_of
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    ModelNotFound,
    ModelNotTunable,
    NotFound,
    SigningSecretMissing,
    UrlNotAllowed,
)
from shared.pools import TRAIN, UPKEEP

JOBS = "/v1/fine_tuning/jobs"
SUBMIT_ROUTE = f"POST {JOBS}"
KIND = "fine_tune"
NOTHING = "there is no such fine-tuning job"

routes = RouteTable("Fine-tuning", "Models made of other models, and of a tenant's own examples")


@routes.post(
    JOBS,
    body=FineTuningRequest,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: FineTuningJob},
    errors=(
        ModelNotFound,
        ModelNotTunable,
        NotFound,
        IdempotencyMismatch,
        UrlNotAllowed,
        SigningSecretMissing,
    ),
)
def create_fine_tuning_job(services: Services, tenant_id: str) -> Response:
    """Starts a fine-tuning job; its data are judged first. With `dry_run`, nothing more; with
    `sweep`, many trainings follow, each a job of its own."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(SUBMIT_ROUTE, parsing.idempotency_key(request), document)
    job_id = submit_tuning(services, tenant_id, once, lambda: read_tuning(document))
    return json_reply(_show(services, tenant_id, job_id))


@routes.get(
    JOBS,
    parameters=(
        LIMIT,
        AFTER,
        query(
            "metadata",
            "Only jobs with these labels: `metadata[key]=value`; `metadata=null`: without any",
            type="string",
        ),
        query(
            "parent",
            "Only trials of the sweep with this id; `none`: only jobs that are no trials",
            type="string",
        ),
    ),
    answers={200: FineTuningJobList},
)
def list_fine_tuning_jobs(services: Services, tenant_id: str) -> Response:
    """Fine-tuning jobs, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = list_jobs(
            connection,
            tenant_id,
            kinds=[KIND],
            after=after,
            limit=limit + 1,
            metadata=_labels_asked(),
            parent=_parent_asked(),
        )
        tunings = tunings_of(connection, tenant_id, [row.id for row in rows])
    shown = [
        fine_tuning_rendering.job(row, tunings[row.id], tenant_id)
        for row in rows
        if row.id in tunings
    ]
    return json_reply(rendering.page(shown, limit))


def _labels_asked() -> dict[str, str] | Literal["none"] | None:
    if request.args.get("metadata") == "null":
        return "none"
    labels = {
        name[len("metadata[") : -1]: value
        for name, value in request.args.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    if any("\0" in text for pair in labels.items() for text in pair):
        raise InvalidRequest("'metadata' must be text", param="metadata")
    return labels or None


def _parent_asked() -> str | None:
    parent = request.args.get("parent")
    if parent is not None and not parsing.is_id(parent):
        raise InvalidRequest("'parent' must be the id of a job, or none", param="parent")
    return parent


@routes.get(
    f"{JOBS}/<fine_tuning_job_id>",
    parameters=(
        query("wait", "Answer once it has ended, or after so many seconds", type="number"),
    ),
    answers={200: FineTuningJob},
)
def retrieve_fine_tuning_job(
    services: Services, tenant_id: str, fine_tuning_job_id: str
) -> Response:
    """A fine-tuning job: how far it is, its newest loss, when it should be done."""
    seconds = parsing.wait_seconds(request, services.settings.max_wait_seconds)
    if seconds:
        with services.autocommit.connect() as connection:
            row, _ = find_tuning(connection, tenant_id, fine_tuning_job_id)
        if not rendering.has_ended(row.state):
            services.waiter.wait(tenant_id, row.id, seconds)
    return json_reply(_show(services, tenant_id, fine_tuning_job_id))


@routes.post(
    f"{JOBS}/<fine_tuning_job_id>/cancel", answers={200: FineTuningJob}, errors=(Conflict,)
)
def cancel_fine_tuning_job(services: Services, tenant_id: str, fine_tuning_job_id: str) -> Response:
    """Asks a fine-tuning job to stop; its checkpoints can still be asked by name. Asking again
    changes nothing."""
    _known(fine_tuning_job_id)
    cancel_job(services, tenant_id, fine_tuning_job_id, kind=KIND)
    return json_reply(_show(services, tenant_id, fine_tuning_job_id))


@routes.post(f"{JOBS}/<fine_tuning_job_id>/pause", answers={200: FineTuningJob}, errors=(Conflict,))
def pause_fine_tuning_job(services: Services, tenant_id: str, fine_tuning_job_id: str) -> Response:
    """Asks a training to save a checkpoint and wait; `paused` is true from then on. Asking again
    changes nothing."""
    with services.transaction() as connection:
        row, _ = find_tuning(connection, tenant_id, fine_tuning_job_id)
        lifecycle.request_pause(connection, tenant_id=tenant_id, job_id=row.id)
        row, tuning = find_tuning(connection, tenant_id, row.id)
    _require_open(row)
    if tuning.paused_at is None:
        raise Conflict("this fine-tuning job is stopping")
    return json_reply(fine_tuning_rendering.job(row, tuning, tenant_id))


@routes.post(
    f"{JOBS}/<fine_tuning_job_id>/resume", answers={200: FineTuningJob}, errors=(Conflict,)
)
def resume_fine_tuning_job(services: Services, tenant_id: str, fine_tuning_job_id: str) -> Response:
    """Lets a paused training go on from its newest checkpoint; a sweep's trials too, of which one
    alone can't go on. Asking again changes nothing."""
    with services.transaction() as connection:
        row, tuning = find_tuning(connection, tenant_id, fine_tuning_job_id)
        _require_running_sweep(connection, tenant_id, tuning)
        resumed = lifecycle.request_resume(connection, tenant_id=tenant_id, job_id=row.id)
        row, tuning = find_tuning(connection, tenant_id, row.id)
    _require_open(row)
    if resumed:
        services.bell.ring(TRAIN)
        if tuning.sweep is not None:
            services.bell.ring(UPKEEP)
    return json_reply(fine_tuning_rendering.job(row, tuning, tenant_id))


def _require_running_sweep(connection: Connection, tenant_id: str, tuning: Tuning) -> None:
    """Raises Conflict for a trial whose sweep is paused: it would be paused again at once."""
    if tuning.trial is None:
        return
    row, sweep = find_tuning(connection, tenant_id, tuning.trial.parent_id)
    if sweep.paused_at is not None and not rendering.has_ended(row.state):
        raise Conflict("the sweep of this trial is paused: resume the sweep")


def _require_open(row: JobRow) -> None:
    if rendering.has_ended(row.state):
        raise Conflict("this fine-tuning job has ended already")


def find_tuning(connection: Connection, tenant_id: str, job_id: str) -> tuple[JobRow, Tuning]:
    """Raises NotFound when the tenant has no such fine-tuning job."""
    found = get_job(connection, tenant_id, _known(job_id))
    tuning = tunings_of(connection, tenant_id, [job_id]).get(job_id) if found else None
    if found is None or tuning is None:
        raise NotFound(NOTHING)
    return found[0], tuning


def _known(job_id: str) -> str:
    if not parsing.is_id(job_id):
        raise NotFound(NOTHING)
    return job_id


def _show(services: Services, tenant_id: str, job_id: str) -> Object:
    with services.autocommit.connect() as connection:
        row, tuning = find_tuning(connection, tenant_id, job_id)
    return fine_tuning_rendering.job(row, tuning, tenant_id)
