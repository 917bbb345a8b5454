"""Webhook endpoints, in OpenAI's shape, and the secret that signs the webhooks of single jobs."""

from __future__ import annotations

from flask import Response, request

from api import parsing, rendering, webhook_rendering
from api.idempotency import once_for
from api.routes.replies import json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable
from api.services import Services
from api.shapes import (
    DeletedWebhookEndpoint,
    SigningSecret,
    SigningSecretShown,
    WebhookEndpoint,
    WebhookEndpointList,
    WebhookEndpointWithSecret,
    WebhookEventTypes,
)
from api.webhook_requests import (
    EndpointRequest,
    EndpointUpdate,
    RotateRequest,
    require_types,
    require_url,
)
from shared import lifecycle
from shared.db import webhooks
from shared.errors import Conflict, NotFound, UrlNotAllowed
from shared.ids import new_webhook_endpoint_id
from shared.webhook_events import event_types
from shared.webhook_signing import new_secret

ENDPOINTS = "/v1/webhook_endpoints"
ENDPOINT = f"{ENDPOINTS}/<webhook_endpoint_id>"
ROTATE_SIGNING = "/v1/webhook_signing_secret/rotate"
CREATE_ROUTE = f"POST {ENDPOINTS}"
NOTHING = "there is no such webhook endpoint"
NO_STORE = {"Cache-Control": "no-store"}

routes = RouteTable("Webhooks", "URLs that are told what has ended, signed, and again if need be")


@routes.post(
    ENDPOINTS,
    body=EndpointRequest,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: WebhookEndpointWithSecret},
    errors=(UrlNotAllowed, Conflict),
)
def create_webhook_endpoint(services: Services, tenant_id: str) -> Response:
    """A new webhook endpoint; this is the only time that its secret is shown."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(EndpointRequest, document)
    parsing.plain_text(asked.name, "name")
    once = once_for(CREATE_ROUTE, parsing.idempotency_key(request), document)
    first = once.first_use(services, tenant_id)
    if first is not None:
        return _shown_again(services, tenant_id, first)
    require_url(services, asked.url)
    secret = new_secret()
    with services.transaction() as connection:
        row = webhooks.create_endpoint(
            connection,
            endpoint_id=new_webhook_endpoint_id(),
            tenant_id=tenant_id,
            name=asked.name,
            url=asked.url,
            event_types=require_types(asked.event_types, "event_types"),
            secret=secret,
        )
        if row is None:
            raise Conflict(f"there are {webhooks.MAX_ENDPOINTS} webhook endpoints already")
        once.made(connection, tenant_id, row.id)
    return _with_secret(row, secret)


@routes.get(ENDPOINTS, parameters=(LIMIT, AFTER), answers={200: WebhookEndpointList})
def list_webhook_endpoints(services: Services, tenant_id: str) -> Response:
    """Webhook endpoints, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = webhooks.list_endpoints(connection, tenant_id, after=after, limit=limit + 1)
    return json_reply(rendering.page([webhook_rendering.endpoint(row) for row in rows], limit))


@routes.get(ENDPOINT, answers={200: WebhookEndpoint})
def retrieve_webhook_endpoint(
    services: Services, tenant_id: str, webhook_endpoint_id: str
) -> Response:
    """A webhook endpoint, and whether it answers."""
    row = find_endpoint(services, tenant_id, webhook_endpoint_id)
    return json_reply(webhook_rendering.endpoint(row))


@routes.post(ENDPOINT, body=EndpointUpdate, answers={200: WebhookEndpoint}, errors=(UrlNotAllowed,))
def update_webhook_endpoint(
    services: Services, tenant_id: str, webhook_endpoint_id: str
) -> Response:
    """Changes what is given. What waits is sent to the new URL; `"enabled": false` ends what
    waits, and it can be replayed later."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(EndpointUpdate, document)
    parsing.one_id(webhook_endpoint_id, "webhook endpoint")
    types = asked.event_types
    if asked.name is not None:
        parsing.plain_text(asked.name, "name")
    if asked.url is not None:
        require_url(services, asked.url)
    if types is not None:
        types = require_types(types, "event_types")
    with services.transaction() as connection:
        row = webhooks.update_endpoint(
            connection,
            tenant_id,
            webhook_endpoint_id,
            name=asked.name,
            url=asked.url,
            event_types=types,
            enabled=asked.enabled,
        )
        if row is None:
            raise NotFound(NOTHING)
        if asked.enabled is False:
            lifecycle.cancel_deliveries(connection, [row.id], "endpoint_disabled")
    return json_reply(webhook_rendering.endpoint(row))


@routes.delete(ENDPOINT, answers={200: DeletedWebhookEndpoint})
def delete_webhook_endpoint(
    services: Services, tenant_id: str, webhook_endpoint_id: str
) -> Response:
    """Ends a webhook endpoint, and what waits for it."""
    parsing.one_id(webhook_endpoint_id, "webhook endpoint")
    with services.transaction() as connection:
        if not webhooks.delete_endpoint(connection, tenant_id, webhook_endpoint_id):
            raise NotFound(NOTHING)
        lifecycle.cancel_deliveries(connection, [webhook_endpoint_id], "endpoint_deleted")
    body = {"id": webhook_endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}
    return json_reply(body)


@routes.post(
    f"{ENDPOINT}/rotate_secret",
    body=RotateRequest,
    body_required=False,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: WebhookEndpointWithSecret},
)
def rotate_webhook_secret(services: Services, tenant_id: str, webhook_endpoint_id: str) -> Response:
    """A new secret, shown this once. The old one signs beside it for a day if it is kept; otherwise
    it ends now."""
    keep, secret = _keep_old(services), new_secret()
    parsing.one_id(webhook_endpoint_id, "webhook endpoint")
    route = f"POST {ENDPOINTS}/{webhook_endpoint_id}/rotate_secret"
    once = once_for(route, parsing.idempotency_key(request), keep)
    if once.first_use(services, tenant_id) is not None:
        return _shown_again(services, tenant_id, webhook_endpoint_id)
    with services.transaction() as connection:
        row = webhooks.rotate_endpoint_secret(
            connection, tenant_id, webhook_endpoint_id, secret=secret, keep_old=keep
        )
        if row is None:
            raise NotFound(NOTHING)
        once.made(connection, tenant_id, row.id)
    return _with_secret(row, secret)


@routes.get("/v1/webhook_event_types", answers={200: WebhookEventTypes})
def list_webhook_event_types(services: Services, tenant_id: str) -> Response:
    """Every type of event that there is here; an endpoint gets those that it names."""
    return json_reply({"object": "list", "data": list(event_types())})


@routes.get("/v1/webhook_signing_secret", answers={200: SigningSecret}, errors=(NotFound,))
def retrieve_webhook_signing_secret(services: Services, tenant_id: str) -> Response:
    """Which secret signs the webhooks of single jobs; 404 before the first one was made."""
    with services.autocommit.connect() as connection:
        row = webhooks.get_secret(connection, tenant_id)
    if row is None:
        raise NotFound("there is no signing secret yet")
    return json_reply(webhook_rendering.signing_secret(row))


@routes.post(
    ROTATE_SIGNING,
    body=RotateRequest,
    body_required=False,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: SigningSecretShown},
)
def rotate_webhook_signing_secret(services: Services, tenant_id: str) -> Response:
    """A new secret for the webhooks of single jobs, shown this once; also makes the first."""
    keep, secret = _keep_old(services), new_secret()
    once = once_for(f"POST {ROTATE_SIGNING}", parsing.idempotency_key(request), keep)
    again = once.first_use(services, tenant_id) is not None
    with services.transaction() as connection:
        row = webhooks.get_secret(connection, tenant_id) if again else None
        if row is None:
            row = webhooks.rotate_secret(connection, tenant_id, secret=secret, keep_old=keep)
            once.made(connection, tenant_id, tenant_id)
    shown = webhook_rendering.signing_secret(row) | {"signing_secret": row.secret}
    return json_reply(shown, headers=NO_STORE)


def find_endpoint(services: Services, tenant_id: str, endpoint_id: str) -> webhooks.EndpointRow:
    """Raises NotFound when the tenant has no such endpoint."""
    parsing.one_id(endpoint_id, "webhook endpoint")
    with services.autocommit.connect() as connection:
        row = webhooks.get_endpoint(connection, tenant_id, endpoint_id)
    if row is None:
        raise NotFound(NOTHING)
    return row


def _shown_again(services: Services, tenant_id: str, endpoint_id: str) -> Response:
    """The answer to a request that came twice: the first answer may not have arrived."""
    row = find_endpoint(services, tenant_id, endpoint_id)
    return _with_secret(row, row.secret)


def _with_secret(row: webhooks.EndpointRow, secret: str) -> Response:
    shown = webhook_rendering.endpoint(row) | {"signing_secret": secret}
    return json_reply(shown, headers=NO_STORE)


def _keep_old(services: Services) -> bool:
    if not request.content_length and not request.mimetype:
        return False
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(RotateRequest, document)
    return bool(asked.keep_old_secret_active_for_24_hours)
