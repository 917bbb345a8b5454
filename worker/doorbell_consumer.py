"""Celery's consumer, narrowed to doorbells: no other message gets as far as Celery's machinery."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import structlog
from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker import loops
from celery.worker.consumer import Consumer
from kombu import compression

from shared.backoff import delays
from shared.doorbell_celery import RING_TASK

LONGEST_BODY = 2_048
CONNECT_BACKOFF_CAP_SECONDS = 5.0
FOLDER_WAIT_SECONDS = 0.25
_ARGUMENTS, _KEYWORDS, _EMBED = range(3)
_RUN = bootsteps.RUN  # type: ignore[attr-defined]

log = structlog.get_logger(__name__)


class DoorbellConsumer(Consumer):
    """Stops when ``stopping`` is set, also while it waits for a broker that is down."""

    hub: Any
    connection_errors: tuple[type[Exception], ...]

    def __init__(self, *arguments: Any, stopping: threading.Event, **options: Any) -> None:
        self._stopping = stopping
        super().__init__(*arguments, **options)

    def end_if_stopping(self) -> None:
        """Raises WorkerShutdown, in the consumer's own thread."""
        if self._stopping.is_set():
            raise WorkerShutdown(0)

    def ensure_connected(self, conn: Any) -> Any:
        """Tries for ever. Celery's own loop ends only by a flag of the whole process."""
        pauses = delays(base=0.5, cap=CONNECT_BACKOFF_CAP_SECONDS)
        while True:
            self.end_if_stopping()
            try:
                conn.ensure_connection(max_retries=0)
            except Exception as error:
                log.warning("broker_unreachable", error=type(error).__name__)
                self._stopping.wait(next(pauses))
            else:
                return conn

    def loop(self, *arguments: Any) -> None:
        """Hears doorbells until the connection breaks or we stop."""
        if self.hub is not None:
            loops.asynloop(*arguments)
            return
        _, connection, consumer, blueprint, *_ = arguments
        consumer.on_message = self.create_task_handler()
        consumer.consume()
        self.on_ready()
        while blueprint.state == _RUN and self.connection:
            self.end_if_stopping()
            self.perform_pending_operations()
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=FOLDER_WAIT_SECONDS)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Passes doorbells on to Celery and rejects the rest, unread."""
        handle = super().create_task_handler(*arguments, **options)

        def on_message(message: Any) -> None:
            if self._stopping.is_set():
                return  # unanswered, so that the broker gives it to another worker
            if is_doorbell(message):
                handle(message)
            else:
                self._refuse(message)

        return on_message

    def call_soon_ack(self, p: Callable[..., object], *args: Any, **kwargs: Any) -> object:
        """Answers the broker now. Celery would wait for its loop's next turn, which may be a poll
        of ten seconds; and since it holds one message at a time, for that long it hears nothing.
        With the solo pool this is the loop's own thread, so nothing needs to wait."""
        p(*args, **kwargs)
        return p

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        self._refuse(message)

    def _refuse(self, message: Any) -> None:
        # Nothing of what it says: whoever wrote it also chose what a log line would show.
        log.warning("doorbell_refused", bytes=len(message.body or b""))
        message.reject_log_error(log, self.connection_errors)


def is_doorbell(message: Any) -> bool:
    """Whether this is a call of our one task with one string, and without anything that makes
    Celery do more than call it: a schedule, callbacks, a chain."""
    headers, body = message.headers, message.body
    if (
        headers.get("task") != RING_TASK
        or not isinstance(headers.get("id"), str)
        or headers.get("eta") is not None
        or headers.get("expires") is not None
        or message.content_type != "application/json"
        or len(body) > LONGEST_BODY
    ):
        return False
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(call, list)
        and len(call) == _EMBED + 1
        and isinstance(call[_ARGUMENTS], list)
        and [type(argument) for argument in call[_ARGUMENTS]] == [str]
        and call[_KEYWORDS] == {}
        and isinstance(call[_EMBED], dict)
        and not any(call[_EMBED].values())
    )


def refuse_compression() -> None:
    """Doorbells are not compressed; a bomb of any kind that kombu knows must not go off."""
    for content_type in compression.encoders():
        found: Any = compression.get_encoder(content_type)
        compression.register(found[0], _refuse_to_decompress, content_type)


def _refuse_to_decompress(_body: bytes) -> NoReturn:
    raise ValueError("doorbells are not compressed")
