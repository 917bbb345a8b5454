"""What was sent to webhooks, what came of it, and sending it again."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from api import parsing, rendering, webhook_rendering
from api.rendering import Object
from api.routes.replies import json_reply
from api.routes.webhooks import ENDPOINT, find_endpoint
from api.routing import AFTER, LIMIT, RouteTable, query
from api.services import Services
from api.shapes import (
    Replayed,
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookEndpointTest,
)
from api.webhook_requests import ReplayRequest, TestRequest, require_types
from api.webhook_testing import send_sample
from shared import lifecycle
from shared.db import webhooks
from shared.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    ReceiverUnreachable,
    SenderUnavailable,
    TooManyRequests,
)
from shared.lifecycle.webhooks import REPLAY_AT_ONCE

routes = RouteTable("Webhook deliveries", "What webhooks were sent, and sending them again")

STATUSES = ("pending", "delivered", "failed", "cancelled")
STATUS = query("status", "Only deliveries in this status", type="string", enum=[*STATUSES])
JOB = query("job_id", "Only deliveries about this job", type="string")


@routes.post(
    f"{ENDPOINT}/test",
    body=TestRequest,
    answers={200: WebhookEndpointTest},
    errors=(ReceiverUnreachable, SenderUnavailable, TooManyRequests),
)
def test_webhook_endpoint(services: Services, tenant_id: str, webhook_endpoint_id: str) -> Response:
    """Sends a sample, once, and tells what the endpoint answered."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(TestRequest, document)
    [kind] = require_types([asked.event_type], "event_type")
    endpoint = find_endpoint(services, tenant_id, webhook_endpoint_id)
    row = send_sample(services, tenant_id, endpoint.id, kind)
    if row.status_code is None:
        raise ReceiverUnreachable(f"the endpoint could not be asked: {row.error_code}")
    body: Object = {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint.id,
        "event_type": kind,
        "status_code": row.status_code,
        "success": True,
    }
    return json_reply(body)


@routes.get(
    f"{ENDPOINT}/deliveries",
    parameters=(LIMIT, AFTER, STATUS, JOB),
    answers={200: WebhookDeliveryList},
)
def list_endpoint_deliveries(
    services: Services, tenant_id: str, webhook_endpoint_id: str
) -> Response:
    """What was sent to an endpoint in the last 30 days, newest first."""
    endpoint = find_endpoint(services, tenant_id, webhook_endpoint_id)
    return json_reply(_page(services, tenant_id, endpoint.id))


@routes.get(
    "/v1/webhook_deliveries",
    parameters=(LIMIT, AFTER, STATUS, JOB),
    answers={200: WebhookDeliveryList},
)
def list_webhook_deliveries(services: Services, tenant_id: str) -> Response:
    """What was sent to any endpoint, and to the webhooks of single jobs, newest first."""
    return json_reply(_page(services, tenant_id, None))


def _page(services: Services, tenant_id: str, endpoint_id: str | None) -> Object:
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    about = request.args.get("job_id")
    if about is not None and not parsing.is_id(about):
        raise InvalidRequest("'job_id' must be the id of a job", param="job_id")
    with services.autocommit.connect() as connection:
        rows = webhooks.list_deliveries(
            connection,
            tenant_id,
            endpoint_id=endpoint_id,
            about=about,
            status=parsing.choice(request, "status", STATUSES),
            after=parsing.cursor(request),
            limit=limit + 1,
        )
    return rendering.page([webhook_rendering.delivery(row) for row in rows], limit)


@routes.get("/v1/webhook_deliveries/<delivery_id>", answers={200: WebhookDelivery})
def retrieve_webhook_delivery(services: Services, tenant_id: str, delivery_id: str) -> Response:
    """A delivery, and its attempts so far."""
    parsing.one_id(delivery_id, "delivery")
    with services.autocommit.connect() as connection:
        row = webhooks.get_delivery(connection, tenant_id, delivery_id)
    if row is None:
        raise NotFound("there is no such delivery")
    return json_reply(webhook_rendering.delivery(row))


@routes.post(
    f"{ENDPOINT}/deliveries/<delivery_id>/replay",
    answers={202: WebhookDelivery},
    errors=(Conflict,),
)
def replay_endpoint_delivery(
    services: Services, tenant_id: str, webhook_endpoint_id: str, delivery_id: str
) -> Response:
    """Sends an ended delivery again, with the same `webhook-id`."""
    find_endpoint(services, tenant_id, webhook_endpoint_id)
    return _replay(services, tenant_id, delivery_id, webhook_endpoint_id)


@routes.post(
    "/v1/webhook_deliveries/<delivery_id>/replay",
    answers={202: WebhookDelivery},
    errors=(Conflict,),
)
def replay_webhook_delivery(services: Services, tenant_id: str, delivery_id: str) -> Response:
    """Sends an ended delivery again, of an endpoint or of a single job."""
    return _replay(services, tenant_id, delivery_id, None)


def _replay(
    services: Services, tenant_id: str, delivery_id: str, endpoint_id: str | None
) -> Response:
    parsing.one_id(delivery_id, "delivery")
    with services.transaction() as connection:
        row = webhooks.get_delivery(connection, tenant_id, delivery_id)
        if row is None or endpoint_id not in {None, row.endpoint_id}:
            raise NotFound("there is no such delivery")
        if not lifecycle.replay_delivery(connection, tenant_id=tenant_id, delivery_id=row.id):
            raise Conflict(_why_not(row))
        row = webhooks.get_delivery(connection, tenant_id, row.id) or row
    return json_reply(webhook_rendering.delivery(row), HTTPStatus.ACCEPTED)


def _why_not(row: webhooks.DeliveryRow) -> str:
    if row.status == "pending":
        return "this delivery is still under way"
    if row.test:
        return "a sample is not replayed: send another one"
    return "the webhook endpoint is disabled"


@routes.post(f"{ENDPOINT}/replay", body=ReplayRequest, answers={202: Replayed}, errors=(Conflict,))
def replay_endpoint_deliveries(
    services: Services, tenant_id: str, webhook_endpoint_id: str
) -> Response:
    """Sends again what was made for an endpoint since a time: all that has ended, or ended so."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(ReplayRequest, document)
    endpoint = find_endpoint(services, tenant_id, webhook_endpoint_id)
    if endpoint.disabled_at is not None:
        raise Conflict("the webhook endpoint is disabled")
    with services.transaction() as connection:
        replayed = lifecycle.replay_since(
            connection,
            tenant_id=tenant_id,
            endpoint_id=endpoint.id,
            since=asked.since,
            status=asked.status,
        )
    body: Object = {
        "object": "webhook_endpoint.replay",
        "webhook_endpoint_id": endpoint.id,
        "replayed": replayed,
        "has_more": replayed == REPLAY_AT_ONCE,
    }
    return json_reply(body, HTTPStatus.ACCEPTED)
