"""From rows to what tenants see of webhooks. Pure."""

from __future__ import annotations

from api.rendering import Object, created_at_of, seconds_of
from shared.db.webhooks import DeliveryRow, EndpointRow, SecretRow
from shared.webhook_retries import FAILURES_TO_OPEN
from shared.webhook_signing import hint_of


def endpoint(row: EndpointRow) -> Object:
    """Without its secret."""
    return {
        "id": row.id,
        "object": "webhook_endpoint",
        "created_at": created_at_of(row.id, row.created_at),
        "updated_at": int(row.updated_at),
        "name": row.name,
        "url": row.url,
        "event_types": row.event_types,
        "signing_secret_hint": hint_of(row.secret),
        "enabled": row.disabled_at is None,
        "disabled_reason": row.disabled_reason,
        "circuit": {
            "state": _circuit(row),
            "failures": row.failures,
            "open_until": seconds_of(row.open_until),
        },
    }


def _circuit(row: EndpointRow) -> str:
    if row.failures < FAILURES_TO_OPEN:
        return "closed"
    return "half_open" if row.open_until is None else "open"


def signing_secret(row: SecretRow) -> Object:
    """Without the secret."""
    return {
        "object": "webhook_signing_secret",
        "signing_secret_hint": hint_of(row.secret),
        "created_at": int(row.created_at),
        "updated_at": int(row.updated_at),
    }


def delivery(row: DeliveryRow) -> Object:
    return {
        "id": row.id,
        "object": "webhook_delivery",
        "webhook_endpoint_id": row.endpoint_id,
        "url": row.url,
        "event_id": row.event_id,
        "event_type": row.event_type,
        "data_id": row.about,
        "test": row.test,
        "status": row.status,
        "attempts": [attempt | {"at": int(attempt["at"])} for attempt in row.attempts],
        "next_attempt_at": seconds_of(row.next_attempt_at),
        "sending": row.sending,
        "status_code": row.status_code,
        "error_code": row.error_code,
        "created_at": created_at_of(row.id, row.created_at),
        "ended_at": seconds_of(row.ended_at),
    }
