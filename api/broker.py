"""Whether the broker answers: for the readiness page alone, since no request depends on it."""

from __future__ import annotations

import time
from threading import Lock
from typing import Literal

import structlog

log = structlog.get_logger()

BrokerState = Literal["ok", "degraded", "off"]

CONNECT_SECONDS = 1.0
REMEMBERED_SECONDS = 5.0


class BrokerProbe:
    """Connects now and then, and remembers the answer for five seconds."""

    def __init__(self, broker_url: str) -> None:
        """``""`` means that doorbells are off."""
        self._broker_url = broker_url
        self._lock = Lock()
        self._state: BrokerState = "off"
        self._known_until = 0.0

    def state(self) -> BrokerState:
        if not self._broker_url:
            return "off"
        with self._lock:
            if time.monotonic() >= self._known_until:
                self._state = self._connect()
                self._known_until = time.monotonic() + REMEMBERED_SECONDS
            return self._state

    def _connect(self) -> BrokerState:
        from shared.doorbell_celery import make_celery

        try:
            connection = make_celery(self._broker_url).connection_for_write(
                connect_timeout=CONNECT_SECONDS
            )
            try:
                connection.ensure_connection(max_retries=0)
            finally:
                connection.release()
        except Exception as error:  # transports raise whatever they like, also for a wrong URL
            log.warning("broker_degraded", error=type(error).__name__)
            return "degraded"
        return "ok"
