"""Direct calls for text, embeddings (as OpenAI's clients make them) and labels."""

from __future__ import annotations

from flask import Response, request

from api import parsing
from api.direct import JOB_HEADER, call
from api.errors import StillRunning
from api.idempotency import once_for
from api.routes.replies import json_reply
from api.routing import IDEMPOTENCY_KEY, RouteTable
from api.services import Services
from api.shapes import Classifications, Completion, Embeddings
from api.submitting import prepare
from shared.errors import (
    ContextLengthExceeded,
    IdempotencyMismatch,
    InvalidRequest,
    ModelNotFound,
    StreamingUnsupported,
    TooManyRequests,
    UnsupportedParameter,
)
from shared.specs import ChatCompletionSpec, ClassificationSpec, CompletionSpec, EmbeddingSpec

routes = RouteTable(
    "Inference",
    "Calls that wait for their result. Each is an ordinary job, whose id is in `x-pressrun-job`: "
    "it goes on when the caller goes away, and when the answer is 504",
)

DIRECT_ERRORS = (
    UnsupportedParameter,
    ModelNotFound,
    IdempotencyMismatch,
    TooManyRequests,
    StillRunning,
)
_TEXT_ERRORS = (*DIRECT_ERRORS, StreamingUnsupported, ContextLengthExceeded)


@routes.post(
    "/v1/chat/completions",
    body=ChatCompletionSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Completion},
    errors=_TEXT_ERRORS,
)
def create_chat_completion(services: Services, tenant_id: str) -> Response:
    """Replies to a conversation."""
    return _answer(services, tenant_id, "/v1/chat/completions")


@routes.post(
    "/v1/completions",
    body=CompletionSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Completion},
    errors=_TEXT_ERRORS,
)
def create_completion(services: Services, tenant_id: str) -> Response:
    """Continues a text."""
    return _answer(services, tenant_id, "/v1/completions")


@routes.post(
    "/v1/embeddings",
    body=EmbeddingSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Embeddings},
    errors=_TEXT_ERRORS,
)
def create_embedding(services: Services, tenant_id: str) -> Response:
    """Turns texts into vectors."""
    return _answer(services, tenant_id, "/v1/embeddings")


@routes.post(
    "/v1/classifications",
    body=ClassificationSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Classifications},
    errors=DIRECT_ERRORS,
)
def create_classification(services: Services, tenant_id: str) -> Response:
    """Labels texts, or finds the entities in them, as the model was trained to."""
    return _answer(services, tenant_id, "/v1/classifications")


def _answer(services: Services, tenant_id: str, endpoint: str) -> Response:
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    once = once_for(f"POST {endpoint}", parsing.idempotency_key(request), document)
    done = call(
        services,
        tenant_id,
        once,
        lambda: prepare(services, tenant_id, endpoint, document),
    )
    if isinstance(done, Response):
        return done
    return json_reply(done.result, headers={JOB_HEADER: done.row.id})
