"""Direct calls for text, embeddings (as OpenAI's clients make them) and labels."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from api import parsing
from api.direct import JOB_HEADER, call
from api.errors import StillRunning
from api.idempotency import once_for
from api.routes.replies import json_reply
from api.routing import IDEMPOTENCY_KEY, RouteTable, header
from api.services import Services
from api.shapes import Classifications, Completion, Embeddings
from api.streaming import CANCEL_HEADER, stream_call, terms_of
from api.submitting import prepare
from shared.errors import (
    ContextLengthExceeded,
    IdempotencyMismatch,
    InvalidRequest,
    InvalidSchema,
    ModelNotFound,
    TooManyRequests,
    UnsupportedParameter,
)
from shared.specs import (
    ChatCompletionSpec,
    ClassificationSpec,
    CompletionSpec,
    EmbeddingSpec,
    GenerationSpec,
    parse_body,
)

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
_TEXT_ERRORS = (*DIRECT_ERRORS, ContextLengthExceeded)
CANCEL_ON_DISCONNECT = header(
    CANCEL_HEADER,
    "Of a stream: its job is cancelled when the caller goes away before the end",
    type="boolean",
    default=False,
)


@routes.post(
    "/v1/chat/completions",
    body=ChatCompletionSpec,
    parameters=(IDEMPOTENCY_KEY, CANCEL_ON_DISCONNECT),
    answers={200: Completion},
    streams=True,
    errors=(*_TEXT_ERRORS, InvalidSchema),
)
def create_chat_completion(services: Services, tenant_id: str) -> Response:
    """Replies to a conversation; with `stream: true` as the reply is generated, with a
    `response_format` held to a JSON schema."""
    return _answer_text(services, tenant_id, "/v1/chat/completions")


@routes.post(
    "/v1/completions",
    body=CompletionSpec,
    parameters=(IDEMPOTENCY_KEY, CANCEL_ON_DISCONNECT),
    answers={200: Completion},
    streams=True,
    errors=_TEXT_ERRORS,
)
def create_completion(services: Services, tenant_id: str) -> Response:
    """Continues a text; with `stream: true` as it is generated."""
    return _answer_text(services, tenant_id, "/v1/completions")


@routes.post(
    "/v1/embeddings",
    body=EmbeddingSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Embeddings},
    errors=_TEXT_ERRORS,
)
def create_embedding(services: Services, tenant_id: str) -> Response:
    """Turns texts into vectors."""
    return answer(services, tenant_id, "/v1/embeddings", json_document(services))


@routes.post(
    "/v1/classifications",
    body=ClassificationSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Classifications},
    errors=DIRECT_ERRORS,
)
def create_classification(services: Services, tenant_id: str) -> Response:
    """Labels texts, or finds the entities in them, as the model was trained to."""
    return answer(services, tenant_id, "/v1/classifications", json_document(services))


def _answer_text(services: Services, tenant_id: str, endpoint: str) -> Response:
    document = json_document(services)
    if document.get("stream") is not True:
        return answer(services, tenant_id, endpoint, document)
    spec = parse_body(endpoint, document, streams=True)
    if not isinstance(spec, GenerationSpec):
        raise TypeError(f"{endpoint} is not an endpoint of text")
    return stream_call(
        services,
        tenant_id,
        once_for(f"POST {endpoint}", parsing.idempotency_key(request), document),
        lambda: prepare(services, tenant_id, endpoint, document, spec),
        terms_of(request, spec),
    )


def answer(services: Services, tenant_id: str, endpoint: str, document: dict[str, Any]) -> Response:
    """The result of one call, waited for; or why there is none."""
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


def json_document(services: Services) -> dict[str, Any]:
    """The body of the request. Raises as ``parsing.json_body`` does."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return document
