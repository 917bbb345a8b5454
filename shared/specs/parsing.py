"""From a JSON body to a spec, with errors that name the field."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shared.errors import (
    InvalidRequest,
    StreamingUnsupported,
    UnsupportedEndpoint,
    UnsupportedParameter,
)
from shared.specs.campaigns import CampaignSpec
from shared.specs.chat import ChatCompletionSpec
from shared.specs.classifications import ClassificationSpec
from shared.specs.common import GenerationSpec, InferenceSpec
from shared.specs.completions import CompletionSpec
from shared.specs.embeddings import EmbeddingSpec
from shared.specs.images import ImageEditSpec, ImageGenerationSpec, ImageVariationSpec
from shared.specs.moderations import ModerationSpec
from shared.specs.responses import ResponseSpec
from shared.specs.speech import SpeechSpec
from shared.specs.videos import CompositionSpec, VideoSpec

ENDPOINTS: dict[str, type[InferenceSpec]] = {
    "/v1/chat/completions": ChatCompletionSpec,
    "/v1/completions": CompletionSpec,
    "/v1/responses": ResponseSpec,
    "/v1/embeddings": EmbeddingSpec,
    "/v1/classifications": ClassificationSpec,
    "/v1/moderations": ModerationSpec,
    "/v1/images/generations": ImageGenerationSpec,
    "/v1/images/edits": ImageEditSpec,
    "/v1/images/variations": ImageVariationSpec,
    "/v1/audio/speech": SpeechSpec,
    "/v1/videos": VideoSpec,
    "/v1/videos/compositions": CompositionSpec,
    "/v1/campaigns": CampaignSpec,
}
"""What a job or a row may ask for, and the shape of its body."""

ANY_ENDPOINT = "/v1/*"
"""The endpoint of a batch whose rows name theirs."""
MAX_COUNTED_MISTAKES = 1_000
"""Of a body with more, none is named: each would take a kilobyte."""


def spec_for(endpoint: str) -> type[InferenceSpec]:
    """The spec class of ``endpoint``. Raises UnsupportedEndpoint."""
    try:
        return ENDPOINTS[endpoint]
    except KeyError:
        served = ", ".join(ENDPOINTS)
        raise UnsupportedEndpoint(f"endpoint must be one of {served}", param="endpoint") from None


def parse_body(endpoint: str, body: Any, *, streams: bool = False) -> InferenceSpec:
    """Validates a decoded body. Raises InvalidRequest or a subclass with ``param`` set.

    ``streams`` says that ``stream: true`` is understood here: somebody reads along.
    """
    spec = spec_for(endpoint)
    try:
        parsed = spec.model_validate(body)
    except ValidationError as error:
        raise _to_domain_error(error) from None
    _check_stream(parsed, streams)
    parsed.check_body()
    return parsed


def parse_body_json(endpoint: str, body: bytes, *, streams: bool = False) -> InferenceSpec:
    """Like ``parse_body`` for undecoded JSON; the quicker way for batch rows."""
    spec = spec_for(endpoint)
    try:
        parsed = spec.model_validate_json(body)
    except ValidationError as error:
        raise _to_domain_error(error) from None
    _check_stream(parsed, streams)
    parsed.check_body()
    return parsed


def _check_stream(spec: InferenceSpec, allowed: bool) -> None:
    if not isinstance(spec, GenerationSpec | ResponseSpec):
        return
    if spec.stream and not allowed:
        raise StreamingUnsupported(
            "only a direct call can stream: leave 'stream' out", param="stream"
        )
    if spec.stream_options is not None and not spec.stream:
        raise InvalidRequest("'stream_options' needs 'stream': true", param="stream_options")


def _to_domain_error(error: ValidationError) -> InvalidRequest:
    if error.error_count() > MAX_COUNTED_MISTAKES:
        return InvalidRequest(f"the body has {error.error_count()} mistakes")
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first = details[0]
    param = _param(first)
    if first["type"] == "extra_forbidden":
        return UnsupportedParameter(f"'{param}' is not supported", param=param)
    if first["type"] == "missing":
        return InvalidRequest(f"'{param}' is required", param=param)
    message = first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"{param or 'body'}: {message}", param=param or None)


def _param(details: ErrorDetails) -> str:
    """A path like ``messages[2].content``; union branch names are left out."""
    path = ""
    for part in details["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier():
            branches = ("str", "ChatMessage", "TextPart", "MediaReference")
            path += "" if part in branches else f".{part}" if path else part
    return path
