"""Moderations, as OpenAI's clients ask for them: direct calls of a classifier."""

from __future__ import annotations

from flask import Response

from api.routes.inference import DIRECT_ERRORS, answer, json_document
from api.routing import IDEMPOTENCY_KEY, RouteTable
from api.services import Services
from api.shapes import Moderations
from shared.errors import ModerationNotConfigured
from shared.specs import ModerationSpec
from shared.translation import MODERATIONS

routes = RouteTable("Moderations", "Whether texts are harmful, as a classifier of yours sees it")


@routes.post(
    "/v1/moderations",
    body=ModerationSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Moderations},
    errors=(*DIRECT_ERRORS, ModerationNotConfigured),
)
def create_moderation(services: Services, tenant_id: str) -> Response:
    """Judges texts by category. Without a `model` the one that is configured to moderate does."""
    return answer(services, tenant_id, MODERATIONS, json_document(services))
