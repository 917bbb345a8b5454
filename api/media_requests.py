"""Reading a call that may bring pictures: as a form with files, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flask import request

from api import parsing
from api.idempotency import Once, once_for, once_of, sha256_of
from api.media_forms import form_body
from api.media_inputs import MEDIA_MEMBERS, SCENES, Pictures
from api.multipart import Form, read_form
from api.picture_headers import MAX_PICTURE_BYTES
from api.services import Services
from api.submitting import CAMPAIGNS, Submission, prepare
from api.webhook_requests import job_webhook, take_webhook
from shared.errors import InvalidRequest
from shared.specs import spec_for

MAX_UPLOAD_BYTES = 4 * MAX_PICTURE_BYTES
"""Of all pictures in one form."""

_UPLOADED = frozenset({"image", "mask", "input_reference", "portrait", "logo", "pictures"})


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """A call that was read and whose pictures were found good; nothing of it is kept yet."""

    endpoint: str
    body: dict[str, Any]
    pictures: Pictures
    once: Once

    def prepare(self, services: Services, tenant_id: str) -> Submission:
        """Checks the rest and stores the pictures. A call that names no model gets the tenant's
        first that serves the endpoint."""
        body, webhook = self.body, None
        if self.endpoint == CAMPAIGNS:
            body, asked = take_webhook(body)
            webhook = job_webhook(services, tenant_id, asked)
        if body.get("model") is None:
            served = "/v1/chat/completions" if self.endpoint == CAMPAIGNS else self.endpoint
            model = services.models.first_serving(tenant_id, served, param="model")
            body = body | {"model": model.id}
        submission = prepare(services, tenant_id, self.endpoint, body, webhook=webhook)
        self.pictures.store(services, tenant_id)
        return submission


@contextmanager
def read_media_request(services: Services, endpoint: str, route: str) -> Iterator[MediaRequest]:
    """The call's body; its uploads are on disk until the block ends.

    Raises UnsupportedMediaType, PayloadTooLarge, InvalidRequest, UnsupportedMedia, MediaTooLarge,
    or what receiving an upload does.
    """
    key = parsing.idempotency_key(request)
    if request.mimetype != "multipart/form-data":
        yield _from_json(services, endpoint, route, key)
        return
    with read_form(
        request,
        scratch_dir=services.settings.scratch_dir,
        max_bytes=MAX_UPLOAD_BYTES,
        param="image",
    ) as form:
        yield _from_form(form, endpoint, route, key)


def _from_json(services: Services, endpoint: str, route: str, key: str | None) -> MediaRequest:
    settings = services.settings
    brings_media = spec_for(endpoint).model_fields.keys() & {*MEDIA_MEMBERS, SCENES}
    limit = settings.max_media_body_bytes if brings_media else settings.max_body_bytes
    document = parsing.json_body(request, max_bytes=limit, besides=settings.max_body_bytes)
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    pictures = Pictures()
    body = pictures.add_data_urls(document)
    once = once_for(route, key, document)
    return MediaRequest(endpoint, body, pictures, once)


def _from_form(form: Form, endpoint: str, route: str, key: str | None) -> MediaRequest:
    spec = spec_for(endpoint)
    body = form_body(spec, form.fields)
    pictures = Pictures()
    for part in form.files:
        name = part.name.removesuffix("[]")
        if name not in _UPLOADED or name not in spec.model_fields:
            raise InvalidRequest("a file is in a field that takes none", param=_shown(name))
        reference = {"file_id": pictures.add_upload(part.path, part.filename, param=name)}
        given = body.get(name)
        if given is None:
            body[name] = [reference] if part.name.endswith("[]") else reference
        else:
            body[name] = [*given, reference] if isinstance(given, list) else [given, reference]
    once = once_of(route, key, lambda: _fingerprint(form))
    return MediaRequest(endpoint, pictures.add_data_urls(body), pictures, once)


def _shown(name: str) -> str | None:
    return name if name.isidentifier() else None


def _fingerprint(form: Form) -> bytes:
    files = [[part.name, sha256_of(part.path)] for part in form.files]
    return parsing.fingerprint([form.fields, files])
