"""What a job would take: counted, measured or bounded, never guessed; each number says how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from api import job_rendering
from api.estimates import outlook
from api.rendering import Object
from api.services import Services
from api.submitting import Submission
from shared.db.job_rows import MAX_POSITION, Standing
from shared.db.queue_estimates import mean_output_tokens, places_ahead, unserved_pools
from shared.errors import InvalidRequest
from shared.lifecycle.quotas import refusal_of
from shared.plans.base import BUNDLE
from shared.quotas import NOTHING, Reservation, of_body
from shared.specs import ResponseSpec, parse_body
from shared.specs.common import GenerationSpec
from shared.states import JobState, Stage

_TOKEN_ENDPOINTS = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings",
                    "/v1/classifications", "/v1/responses", "/v1/moderations"}  # fmt: skip
_IMAGES = "/v1/images/"
_VIDEOS = "/v1/videos"
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """One row of one engine: the job's own, or a step's."""

    endpoint: str
    model: str | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What a call would consume; None where nothing tells."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    max_output_tokens: int | None = None
    images: int | None = None
    seconds: float | None = None


def estimate(services: Services, tenant_id: str, submission: Submission) -> Object:
    """The answer to a dry run. Reads, and writes nothing."""
    calls = [Call(submission.endpoint, submission.model, submission.body)]
    if submission.steps:
        calls = [
            Call(s.endpoint, s.model, s.body) for s in submission.steps if s.endpoint != BUNDLE
        ]
    shown: Object = {
        "object": "job.estimate",
        "dry_run": True,
        "kind": submission.kind,
        "endpoint": submission.endpoint,
        "model": submission.model,
        "pool": submission.pools[0],
        "rows": len(submission.steps) or 1,
    }
    if submission.steps:
        shown["steps"] = dict(Counter(step.endpoint for step in submission.steps))
    else:
        shown |= _tokens(_work(services, tenant_id, calls[0]))
    shown["basis"] = list(_basis(shown))
    cost = _cost(services, tenant_id, calls)
    shown |= {"cost": cost} if cost else {}
    shown |= _quotas(services, tenant_id, calls)
    return shown | _queue(services, tenant_id, submission)


def _work(services: Services, tenant_id: str, call: Call) -> Work:
    if call.endpoint in _TOKEN_ENDPOINTS:
        return _text_work(services, tenant_id, call)
    if call.endpoint.startswith(_IMAGES):
        return Work(images=call.body.get("n", 1))
    if call.endpoint == _VIDEOS and "seconds" in call.body:
        return Work(seconds=float(call.body["seconds"]))
    return Work()


def _text_work(services: Services, tenant_id: str, call: Call) -> Work:
    try:
        spec = parse_body(call.endpoint, call.body)
    except InvalidRequest:  # the step's texts are what steps before it will write
        return Work()
    inputs = spec.estimated_input_tokens()
    if not isinstance(spec, GenerationSpec | ResponseSpec):
        return Work(inputs, 0, 0)
    most = spec.estimated_output_tokens(0) or None
    with services.autocommit.connect() as connection:
        mean = mean_output_tokens(connection, tenant_id, call.endpoint, call.model or "")
    expected = None if mean is None else round(min(mean, most or mean))
    return Work(inputs, expected, most)


def _tokens(work: Work) -> Object:
    found = {
        "input_tokens": work.input_tokens,
        "output_tokens": work.output_tokens,
        "max_output_tokens": work.max_output_tokens,
    }
    return {name: value for name, value in found.items() if value is not None}


def _basis(shown: Object) -> Iterator[str]:
    if "input_tokens" in shown:
        yield "input_tokens: four characters of the texts count as one token"
    if "output_tokens" in shown:
        yield "output_tokens: the mean of your calls of this model within a day"
    if "max_output_tokens" in shown:
        yield "max_output_tokens: the limit in the body, for each of its answers"
    if "steps" in shown:
        yield "rows: the steps of the plan that would be frozen"


# --- money --------------------------------------------------------------------------------------


def _cost(services: Services, tenant_id: str, calls: list[Call]) -> Object | None:
    """The sum of all calls; None as soon as one of them can't be priced."""
    expected: float | None = 0.0
    at_most: float | None = 0.0
    currencies = set()
    for call in calls:
        price = _price(services, tenant_id, call)
        if price is None:
            return None
        currencies.add(price["currency"])
        work = _work(services, tenant_id, call)
        expected = _add(expected, _charge(price, work, work.output_tokens))
        at_most = _add(at_most, _charge(price, work, work.max_output_tokens))
    if len(currencies) != 1 or (expected is None and at_most is None):
        return None
    cost: Object = {"currency": currencies.pop(), "basis": "the catalog's prices"}
    if expected is not None:
        cost["expected"] = round(expected, 8)
    if at_most is not None:
        cost["at_most"] = round(at_most, 8)
    return cost


def _price(services: Services, tenant_id: str, call: Call) -> Object | None:
    model = services.models.serving(tenant_id, call.model or "", call.endpoint, param="model")
    found: Object | None = model.detail.get("price")
    return found


def _charge(price: Object, work: Work, output_tokens: int | None) -> float | None:
    """None when something is consumed that has no price, or that nobody can count."""
    if work.images is not None:
        return _times(price["per_image"], work.images)
    if work.seconds is not None:
        return _times(price["per_second"], work.seconds)
    if work.input_tokens is None or output_tokens is None:
        return None
    inputs = _times(price["input_per_million"], work.input_tokens / _MILLION)
    outputs = (
        _times(price["output_per_million"], output_tokens / _MILLION) if output_tokens else 0.0
    )
    return _add(inputs, outputs)


def _times(price: float | None, amount: float) -> float | None:
    return None if price is None else price * amount


def _add(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


# --- quotas -------------------------------------------------------------------------------------


def _quotas(services: Services, tenant_id: str, calls: list[Call]) -> Object:
    """Whether the tenant's quotas and budgets would take the job at this moment."""
    asked = sum((_reservation(services, tenant_id, call) for call in calls), NOTHING)
    with services.autocommit.connect() as connection:
        refusal = refusal_of(connection, tenant_id, asked)
    if refusal is None:
        return {"quotas": {"is_accepted": True}}
    why = {"code": refusal.code, "message": refusal.message, "param": refusal.param}
    return {"quotas": {"is_accepted": False, "error": why}}


def _reservation(services: Services, tenant_id: str, call: Call) -> Reservation:
    model = services.models.serving(tenant_id, call.model or "", call.endpoint, param="model")
    return of_body(call.endpoint, call.body, model.settings, model.detail.get("price"))


# --- the queue ----------------------------------------------------------------------------------


def _queue(services: Services, tenant_id: str, submission: Submission) -> Object:
    pool = submission.pools[0]
    needed = {pool, *(step.pool for step in submission.steps)}
    with services.autocommit.connect() as connection:
        ahead = places_ahead(connection, tenant_id, pool)
        unserved = unserved_pools(connection, needed)
    new = submission.as_new_job()
    standing = Standing(*(getattr(new, name) for name in Standing._fields))._replace(
        state=JobState.QUEUED, queue_position=ahead, pool=pool
    )
    if submission.steps:
        standing = standing._replace(stage=Stage.STEP)
    told = outlook(standing, services.estimator.pace(pool)) if ahead < MAX_POSITION else None
    shown: Object = {"is_possible": not unserved}
    return shown | (job_rendering.expected(new.created_at, told) if told else {})
