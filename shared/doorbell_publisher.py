"""Publishes doorbells over one connection, with every wait bounded. For one thread."""

from __future__ import annotations

import contextlib
from typing import Any

from shared.doorbell_celery import RING_TASK, doorbell_queue, make_celery

CONFIRM_SECONDS = 2.0
BLOCKED_SECONDS = 1.0


class BrokerBlocked(Exception):
    """The broker has an alarm (memory or disk) and reads nothing until it is over."""


class Publisher:
    """``publish`` takes at most ten seconds, whatever the broker does."""

    def __init__(self, broker_url: str) -> None:
        """Raises OSError if the folder of a ``filesystem://`` broker can't be made."""
        self._app = make_celery(broker_url)
        self._connection: Any = None
        self._transport: Any = None
        self._producer: Any = None
        self._blocked = False

    def publish(self, pool: str) -> None:
        """Rings, and returns once the broker has confirmed. Raises an exception of any kind."""
        if self._blocked:
            self._await_unblocked()
        if self._producer is None:
            self._connect()
        queue: Any = doorbell_queue(pool)
        try:
            self._app.send_task(
                RING_TASK,
                args=(pool,),
                queue=queue,
                producer=self._producer,
                ignore_result=True,
                retry=False,
                confirm_timeout=CONFIRM_SECONDS,
            )
        except Exception as error:
            if self._blocked:
                raise BrokerBlocked from error
            self.close()
            raise

    def close(self) -> None:
        """Drops the connection without a farewell, for which a broker in trouble lets us wait."""
        connection, self._connection = self._connection, None
        transport, self._transport = self._transport, None
        self._producer = None
        self._blocked = False
        if connection is None:
            return
        with contextlib.suppress(Exception):
            if collect := getattr(transport, "collect", None):
                collect()
            connection.release()

    def _connect(self) -> None:
        connection = self._app.connection_for_write(
            transport_options={
                "confirm_publish": True,
                "read_timeout": 3,
                "write_timeout": 3,
                "on_blocked": self._on_blocked,
                "on_unblocked": self._on_unblocked,
            }
        )
        self._connection = connection
        try:
            self._transport = connection.ensure_connection(max_retries=0).connection
            self._producer = self._app.amqp.Producer(connection.channel(), auto_declare=False)
        except Exception:
            self.close()
            raise

    def _await_unblocked(self) -> None:
        """Keeps the connection: a blocked broker would not even notice that it was closed.

        What was published last is still on its way, and rings when the alarm is over.
        """
        try:
            with contextlib.suppress(TimeoutError):
                while self._blocked:
                    self._connection.drain_events(timeout=BLOCKED_SECONDS)
        except Exception:
            self.close()
            raise
        if self._blocked:
            raise BrokerBlocked

    def _on_blocked(self, _reason: str) -> None:
        self._blocked = True

    def _on_unblocked(self) -> None:
        self._blocked = False
