"""Sending a sample to an endpoint, and waiting for what it answers: upkeep sends, as always."""

from __future__ import annotations

import threading
import time

from api.services import Services
from shared import lifecycle
from shared.db.webhooks import DeliveryRow, get_delivery
from shared.errors import NotFound, SenderUnavailable, TooManyRequests

MAX_TESTS = 4
"""Of one process at a time: each keeps a thread for as long as the receiver takes."""
PATIENCE_SECONDS = 10.0
"""Beyond the receiver's own time, for a sender to come by."""
LOOK_SECONDS = 0.1

_places = threading.BoundedSemaphore(MAX_TESTS)


def send_sample(services: Services, tenant_id: str, endpoint_id: str, kind: str) -> DeliveryRow:
    """The delivery once it has ended. Raises NotFound, TooManyRequests or SenderUnavailable."""
    if not _places.acquire(blocking=False):
        raise TooManyRequests("too many tests of webhooks are under way; try again")
    try:
        with services.autocommit.connect() as connection:
            delivery_id = lifecycle.add_test_delivery(
                connection, tenant_id=tenant_id, endpoint_id=endpoint_id, kind=kind
            )
        if delivery_id is None:
            raise NotFound("there is no such webhook endpoint")
        return _await(services, tenant_id, delivery_id)
    finally:
        _places.release()


def _await(services: Services, tenant_id: str, delivery_id: str) -> DeliveryRow:
    patience = services.settings.webhook_timeout_seconds + PATIENCE_SECONDS
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with services.autocommit.connect() as connection:
            row = get_delivery(connection, tenant_id, delivery_id)
        if row is None:
            raise NotFound("the webhook endpoint was deleted")
        if row.status != "pending":
            return row
        time.sleep(LOOK_SECONDS)
    raise SenderUnavailable("nobody has sent the webhook yet; is an upkeep worker running?")
