"""From a validated request to a committed job, whichever route it came by.

``prepare`` reads and checks, ``submit`` commits and rings; ``submit_once`` does both unless the
same request was here before (``api.idempotency``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from api import rendering
from api.completing import completed
from api.idempotency import Once
from api.limits import DEFAULT_PRIORITY
from api.services import Services
from shared import ids, lifecycle
from shared.db.jobs import JobRow
from shared.specs import InferenceSpec, parse_body
from shared.translation import ENGINE_ENDPOINTS, RESPONSES

if TYPE_CHECKING:
    from shared.plans import Offers, Step

CAMPAIGNS = "/v1/campaigns"
VIDEOS = "/v1/videos"
COMPOSITIONS = "/v1/videos/compositions"

_PLANNED = {"video", "campaign"}
"""Kinds of which some, or all, are graphs."""
_KINDS = {CAMPAIGNS: "campaign", VIDEOS: "video", COMPOSITIONS: "video", RESPONSES: "response"}
_NEW_ID = {
    "generate": ids.new_job_id,
    "video": ids.new_video_id,
    "campaign": ids.new_campaign_id,
    "response": ids.new_response_id,
}


class LimitsApply(Exception):
    """The tenant has limits, which are looked at in a transaction of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job that was found good and is not accepted yet."""

    job_id: str
    kind: str
    endpoint: str
    body: dict[str, Any]
    model: str
    """Its id, whatever the request called it."""
    pools: tuple[str, ...]
    """Those that may have work once it is accepted."""
    steps: tuple[Step, ...] = ()
    """Of a graph; none for one row in one engine."""
    metadata: dict[str, str] | None = None
    priority: int = DEFAULT_PRIORITY
    expires_in_seconds: float | None = None
    webhook: lifecycle.JobWebhook | None = None
    """Whom its end is told to, beside the tenant's webhook endpoints."""
    client_id: lifecycle.ClientId | None = None
    """The caller's own id, of a job that is put."""
    alias: str | None = None
    """What the request called ``model``, if that was an alias."""
    models: dict[str, str] | None = None
    """Who held each alias that the request names; None where it names none."""

    @property
    def detail(self) -> dict[str, Any]:
        """What is known of the job from the start."""
        if not self.models:
            return {}
        return {"models": self.models} | ({"alias": self.alias} if self.alias else {})

    def as_new_job(self) -> JobRow:
        """How the job looks the moment it is accepted."""
        return rendering.new_job(
            self.job_id,
            kind=self.kind,
            endpoint=self.endpoint,
            model=self.model,
            metadata=self.metadata,
            expires_in_seconds=self.expires_in_seconds,
            steps=len(self.steps),
            client_id=None if self.client_id is None else self.client_id.value,
            alias=self.alias,
            models=self.models,
        )


def prepare(
    services: Services,
    tenant_id: str,
    endpoint: str,
    body: dict[str, Any],
    spec: InferenceSpec | None = None,
    /,
    **terms: Any,
) -> Submission:
    """Checks ``body`` against the endpoint and the tenant's models, and plans it where it is a
    graph. ``spec`` is the body where that is checked already; ``terms`` are ``metadata``,
    ``priority`` and ``expires_in_seconds``. Aliases are looked up here, once: the job is for the
    models that hold them now.

    Raises InvalidRequest or a subclass, ModelNotFound, or what ``completed`` raises, with
    ``param`` set.
    """
    spec = spec or parse_body(endpoint, body)
    kind = _KINDS.get(endpoint, "generate")
    job_id = _NEW_ID[kind]()
    pool, engine = "", ""
    named = services.models.offers(tenant_id)
    if endpoint in ENGINE_ENDPOINTS:
        body = completed(services, tenant_id, named, spec, body)
    name: str = body["model"]
    if endpoint != CAMPAIGNS:  # whose model writes texts: the plan looks for it
        model = named(endpoint, name, "model")
        pool, engine = model.pool, model.engine
    steps: tuple[Step, ...] = ()
    if kind in _PLANNED:
        steps = _plan(endpoint, spec, named, engine=engine, row=f"{job_id}-0")
    holder = named.aliases.get(name)
    return Submission(
        job_id=job_id,
        kind=kind,
        endpoint=endpoint,
        body=body if holder is None else body | {"model": holder},
        model=holder or name,
        alias=name if holder else None,
        models=named.aliases or None,
        pools=tuple(sorted({step.pool for step in steps if not step.needs})) or (pool,),
        steps=steps,
        **terms,
    )


def _plan(
    endpoint: str, spec: InferenceSpec, offers: Offers, *, engine: str, row: str
) -> tuple[Step, ...]:
    # Here, since most processes answer many a request before the first that is planned.
    from shared.plans import is_planned, plan

    return tuple(plan(endpoint, spec, offers, row=row)) if is_planned(endpoint, engine) else ()


def submit(
    services: Services,
    tenant_id: str,
    submission: Submission,
    once: lifecycle.Idempotency | None = None,
) -> None:
    """Commits the job, then rings. Raises sqlalchemy's IntegrityError when the client id is taken,
    RequestUnderWay when the claim on the key was lost, and QuotaExceeded or BudgetExceeded."""
    if submission.steps:
        _submit_graph(services, tenant_id, submission, once)
    elif once is not None and once.key is not None:
        _submit_row(services, tenant_id, submission, once)
    else:
        new = _as_new_generation(tenant_id, submission, None if once is None else once.request_hash)
        if submission.webhook is not None or services.gate.terms(tenant_id).limits.bind_work:
            _submit_alone(services, new, submission.webhook)
        else:
            _submit_together(services, new)
    for pool in submission.pools:
        services.bell.ring(pool)


def _as_new_generation(
    tenant_id: str, submission: Submission, request_hash: bytes | None
) -> lifecycle.NewGeneration:
    return lifecycle.NewGeneration(
        submission.job_id,
        tenant_id,
        submission.pools[0],
        submission.endpoint,
        submission.model,
        json.dumps(submission.body),
        submission.metadata,
        submission.priority,
        submission.expires_in_seconds,
        submission.kind,
        submission.client_id,
        detail=submission.detail,
        request_hash=request_hash,
    )


def _submit_together(services: Services, new: lifecycle.NewGeneration) -> None:
    try:
        services.intake.add(new)
    except LimitsApply:  # since a moment ago, or none that work counts for
        _submit_alone(services, new, None)


def _submit_alone(
    services: Services, new: lifecycle.NewGeneration, webhook: lifecycle.JobWebhook | None
) -> None:
    with services.transaction() as connection:
        lifecycle.submit_generations(connection, [new], window=services.settings.ready_window)
        lifecycle.attach_webhook(connection, new.job_id, webhook)


def _submit_row(
    services: Services,
    tenant_id: str,
    submission: Submission,
    once: lifecycle.Idempotency,
) -> None:
    with services.transaction() as connection:
        lifecycle.submit_generation(
            connection,
            job_id=submission.job_id,
            tenant_id=tenant_id,
            kind=submission.kind,
            pool=submission.pools[0],
            endpoint=submission.endpoint,
            model=submission.model,
            body=submission.body,
            metadata=submission.metadata,
            priority=submission.priority,
            expires_in_seconds=submission.expires_in_seconds,
            window=services.settings.ready_window,
            idempotency=once,
            detail=submission.detail,
        )
        lifecycle.attach_webhook(connection, submission.job_id, submission.webhook)


def _submit_graph(
    services: Services,
    tenant_id: str,
    submission: Submission,
    once: lifecycle.Idempotency | None,
) -> None:
    with services.transaction() as connection:
        lifecycle.submit_plan(
            connection,
            job_id=submission.job_id,
            tenant_id=tenant_id,
            kind=submission.kind,
            endpoint=submission.endpoint,
            model=submission.model,
            body=submission.body,
            steps=submission.steps,
            client_id=submission.client_id,
            metadata=submission.metadata,
            priority=submission.priority,
            expires_in_seconds=submission.expires_in_seconds,
            window=services.settings.ready_window,
            idempotency=once,
            detail=submission.detail,
        )
        lifecycle.attach_webhook(connection, submission.job_id, submission.webhook)


def submit_once(
    services: Services, tenant_id: str, once: Once, make: Callable[[], Submission]
) -> tuple[str, Submission | None]:
    """Submits what ``make`` prepares, unless the key made a job already. Returns the job's id, and
    what was submitted by this call.

    Raises IdempotencyMismatch when the key was used with another body, RequestUnderWay when it is
    being used, and what ``make`` raises.
    """
    first = once.first_use(services, tenant_id)
    if first is not None:
        return first, None
    submission = make()
    submit(services, tenant_id, submission, once.for_submit())
    return submission.job_id, submission
