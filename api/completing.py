"""What the body of a translated call (``shared.translation``) leaves out: the turns of earlier
responses, the model that moderates. It is put in when the job is accepted, once."""

from __future__ import annotations

from typing import Any

from api import parsing
from api.services import NamedModels, Services
from shared.db.briefs import briefs_of
from shared.db.jobs import get_job
from shared.errors import (
    Conflict,
    ContextLengthExceeded,
    ModelNotFound,
    ModerationNotConfigured,
    NotFound,
)
from shared.specs import InferenceSpec, ModerationSpec, ResponseSpec
from shared.specs.chat import MAX_MESSAGES
from shared.states import JobState
from shared.translation import MODERATIONS
from shared.translation.moderations import HINT, moderator
from shared.translation.responses import Object, turn_of, turns_of

_PREVIOUS = "previous_response_id"


def completed(
    services: Services,
    tenant_id: str,
    offers: NamedModels,
    spec: InferenceSpec,
    body: dict[str, Any],
) -> dict[str, Any]:
    """``body`` with everything that its engine will need in it.

    Raises NotFound or Conflict for a previous response that is not there or has no answer,
    ContextLengthExceeded, and ModerationNotConfigured.
    """
    if isinstance(spec, ResponseSpec) and spec.previous_response_id is not None:
        prior = _prior_turns(services, tenant_id, spec.previous_response_id)
        turns = [*prior, *turns_of(body["input"])]
        _check_length(turns, services.settings.max_body_bytes)
        return body | {"input": turns}
    if isinstance(spec, ModerationSpec) and not spec.model:
        return body | {"model": _moderator(services, tenant_id, offers)}
    return body


def _prior_turns(services: Services, tenant_id: str, response_id: str) -> list[Object]:
    """All that was said until that response had its answer: it keeps what came before it, so one
    look is enough, and deleting earlier ones changes nothing."""
    found = brief = None
    if parsing.is_id(response_id):
        with services.autocommit.connect() as connection:
            found = get_job(connection, tenant_id, response_id)
            briefs = briefs_of(connection, tenant_id, [response_id], members=["input"])
            brief = briefs.get(response_id)
    if found is None or brief is None or found[0].kind != "response":
        raise NotFound("there is no such response", param=_PREVIOUS)
    if found[0].state != JobState.SUCCEEDED or brief.result is None:
        raise Conflict("that response has no answer to go on from", param=_PREVIOUS)
    return [*turns_of(brief.asked["input"]), turn_of(brief.result)]


def _check_length(turns: list[Object], max_characters: int) -> None:
    said = sum(len(turn["content"]) for turn in turns)
    if len(turns) > MAX_MESSAGES or said > max_characters:
        raise ContextLengthExceeded(
            f"a conversation has at most {MAX_MESSAGES} turns and {max_characters} characters",
            param=_PREVIOUS,
        )


def _moderator(services: Services, tenant_id: str, offers: NamedModels) -> str:
    configured = services.settings.moderation_model
    models = [] if configured is not None else services.models.all(tenant_id)
    name = moderator({model.id: model.endpoints for model in models}, configured)
    if name is None:
        raise ModerationNotConfigured(HINT, param="model")
    try:
        return offers(MODERATIONS, name, "model").id
    except ModelNotFound:
        raise ModerationNotConfigured(HINT, param="model") from None
