"""Pictures, as OpenAI's clients ask for them."""

from __future__ import annotations

import json

from flask import Response

from api.direct import JOB_HEADER, call
from api.links import refresh
from api.media_requests import read_media_request
from api.rendering import Object
from api.routes.inference import DIRECT_ERRORS
from api.routes.replies import json_reply
from api.routing import IDEMPOTENCY_KEY, MULTIPART, RouteTable
from api.services import Services
from api.shapes import Images
from shared.errors import MediaTooLarge, StorageFull, StorageUnavailable, UnsupportedMedia
from shared.specs import ImageEditSpec, ImageGenerationSpec, ImageVariationSpec

routes = RouteTable("Images", "Pictures from texts and from pictures; the calls wait for them")

_INPUT_ERRORS = (*DIRECT_ERRORS, UnsupportedMedia, MediaTooLarge, StorageUnavailable, StorageFull)


@routes.post(
    "/v1/images/generations",
    body=ImageGenerationSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Images},
    errors=DIRECT_ERRORS,
)
def create_image(services: Services, tenant_id: str) -> Response:
    """Makes pictures from a text. Without a `model`, the first that makes pictures."""
    return _answer(services, tenant_id, "/v1/images/generations")


@routes.post(
    "/v1/images/edits",
    body=ImageEditSpec,
    body_types=("application/json", MULTIPART),
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Images},
    errors=_INPUT_ERRORS,
)
def edit_image(services: Services, tenant_id: str) -> Response:
    """Changes a picture after a text; with a mask, only where the mask is transparent. Pictures
    are uploaded files (PNG, JPEG, WebP), or named by file id, artifact id or `data:` URL."""
    return _answer(services, tenant_id, "/v1/images/edits")


@routes.post(
    "/v1/images/variations",
    body=ImageVariationSpec,
    body_types=("application/json", MULTIPART),
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: Images},
    errors=_INPUT_ERRORS,
)
def create_image_variation(services: Services, tenant_id: str) -> Response:
    """Makes pictures like the given one, which comes as in an edit."""
    return _answer(services, tenant_id, "/v1/images/variations")


def _answer(services: Services, tenant_id: str, endpoint: str) -> Response:
    with read_media_request(services, endpoint, f"POST {endpoint}") as asked:
        done = call(services, tenant_id, asked.once, lambda: asked.prepare(services, tenant_id))
    if isinstance(done, Response):
        return done
    body = _with_details(json.loads(done.result))
    refresh(services, tenant_id, body)
    return json_reply(body, headers={JOB_HEADER: done.row.id})


def _with_details(body: Object) -> Object:
    """With the details of usage that strict clients want; all of a prompt's tokens are text."""
    usage = body.get("usage")
    if isinstance(usage, dict) and "input_tokens_details" not in usage:
        tokens = usage.get("input_tokens", 0)
        usage["input_tokens_details"] = {"text_tokens": tokens, "image_tokens": 0}
    return body
