"""Sending webhooks: a pass of its own, on threads of its own.

One thread does all that needs the database: it makes deliveries of jobs that have ended, leases
those that are due, and writes what came of them. Others send. A receiver that hangs keeps one of
those others waiting, and neither dispatch, nor the reaper, nor anybody's job.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.backoff import delay_seconds
from shared.db.session import autocommit
from shared.db.webhook_retention import clean_webhooks
from shared.ids import new_id
from shared.lifecycle.webhook_attempts import (
    GONE,
    Attempt,
    LeasedDelivery,
    claim_deliveries,
    record_attempts,
)
from shared.lifecycle.webhooks import announce_ends
from shared.webhook_events import payload
from shared.webhook_retries import read_retry_after
from shared.webhook_signing import signed_headers
from worker.egress import Egress, EgressFailed

log = structlog.get_logger()

EACH_RECEIVER = 8
"""Requests to one receiver at a time, from all upkeep workers together."""
LEASE_MARGIN_SECONDS = 15.0
"""Of a lease, beyond the time that sending may take: for the answer to be written down."""
ANNOUNCE_AT_ONCE = 500
CLEAN_SECONDS = 60.0
STOP_SECONDS = 5.0
"""After a stop: time for what is being sent to be written down; the rest is sent again."""
WAKE_SECONDS = 0.1
SUCCESS = range(200, 300)
CONTENT = {"Content-Type": "application/json"}


class WebhookSender:
    """Any number of processes may run one; a delivery is leased to one of them at a time."""

    def __init__(
        self,
        database: Engine,
        egress: Egress,
        *,
        concurrency: int,
        timeout_seconds: float,
        pause_seconds: float,
    ) -> None:
        """``timeout_seconds`` is what ``egress`` takes at most, ``pause_seconds`` how long new
        ends may wait before somebody looks."""
        self._database = database
        self._egress = egress
        self._concurrency = concurrency
        self._pause_seconds = pause_seconds
        self._lease_seconds = timeout_seconds + LEASE_MARGIN_SECONDS
        self._lease = new_id("lease_")
        self._under_way = 0
        self._unrecorded: list[Attempt] = []
        self._next_look = self._next_clean = 0.0
        self._closing = threading.Event()
        self._due: queue.SimpleQueue[LeasedDelivery] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="webhooks", daemon=True)

    def start(self) -> None:
        for number in range(self._concurrency):
            name = f"webhook-{number}"
            threading.Thread(target=self._send_forever, name=name, daemon=True).start()
        self._thread.start()

    def stop(self) -> None:
        """Leases nothing more; what is being sent has a moment to be written down."""
        self._closing.set()
        self._thread.join(timeout=2 * STOP_SECONDS)

    # --- the thread with the database ---------------------------------------------------------

    def _loop(self) -> None:
        tries = 0
        while not self._closing.is_set():
            worked = self._guarded(self._turn)
            tries = 0 if worked else tries + 1
            if tries:
                self._closing.wait(delay_seconds(tries, base=self._pause_seconds, cap=30.0))
            else:
                self._collect(max(0.0, self._next_look - time.monotonic()))
        deadline = time.monotonic() + STOP_SECONDS
        while self._under_way and time.monotonic() < deadline:
            self._collect(WAKE_SECONDS)
        self._guarded(self._record)

    def _guarded(self, call: Callable[[], None]) -> bool:
        """Whether the call came to its end; nothing that happens in it ends this thread."""
        try:
            call()
        except SQLAlchemyError as error:
            log.warning("webhooks_postponed", error=type(error).__name__)
            return False
        except Exception:
            log.exception("webhooks_broken")
            return False
        return True

    def _turn(self) -> None:
        """Everything that is due. Raises SQLAlchemyError, having lost nothing."""
        self._record()
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._pause_seconds
            self._announce()
        self._claim()
        if time.monotonic() >= self._next_clean:
            self._next_clean = time.monotonic() + CLEAN_SECONDS
            with autocommit(self._database) as connection:
                clean_webhooks(connection)

    def _collect(self, seconds: float) -> None:
        """Takes what has been sent; waits up to ``seconds`` for the first of it."""
        # In slices, so that a stop need not wait for the next look.
        until = time.monotonic() + seconds
        while not self._closing.is_set() or self._under_way:
            left = until - time.monotonic()
            try:
                attempt = self._done.get(timeout=max(0.0, min(left, WAKE_SECONDS)))
            except queue.Empty:
                if left <= WAKE_SECONDS:
                    return
                continue
            self._took(attempt)
            while not self._done.empty():
                self._took(self._done.get())
            return

    def _took(self, attempt: Attempt) -> None:
        self._under_way -= 1
        self._unrecorded.append(attempt)

    def _record(self) -> None:
        if not self._unrecorded:
            return
        with self._database.begin() as connection:
            record_attempts(connection, self._lease, self._unrecorded)
        self._unrecorded = []

    def _announce(self) -> None:
        with self._database.begin() as connection:
            looked_at, made = announce_ends(connection, limit=ANNOUNCE_AT_ONCE)
        if looked_at == ANNOUNCE_AT_ONCE:
            self._next_look = 0.0  # there is more
        if made:
            log.debug("webhooks_made", count=made)

    def _claim(self) -> None:
        if self._under_way >= self._concurrency or self._closing.is_set():
            return
        with self._database.begin() as connection:
            claimed = claim_deliveries(
                connection,
                lease=self._lease,
                lease_seconds=self._lease_seconds,
                limit=self._concurrency - self._under_way,
                each=EACH_RECEIVER,
            )
        self._under_way += len(claimed)
        for delivery in claimed:
            self._due.put(delivery)

    # --- threads that send --------------------------------------------------------------------

    def _send_forever(self) -> None:
        while True:
            self._done.put(self._send(self._due.get()))

    def _send(self, delivery: LeasedDelivery) -> Attempt:
        began, clock = time.time(), time.monotonic()
        try:
            outcome = self._outcome(delivery, int(began))
        except Exception:  # a sender that died would keep its delivery, and its place
            log.exception("webhooks_broken", delivery=delivery.id)
            outcome = {"error_code": "internal_error"}
        attempt = Attempt(
            delivery=delivery,
            at=began,
            milliseconds=round((time.monotonic() - clock) * 1000),
            **outcome,
        )
        if attempt.error_code is not None:
            log.info(
                "webhook_failed",
                delivery=delivery.id,
                attempt=delivery.attempt_n + 1,
                error=attempt.error_code,
                milliseconds=attempt.milliseconds,
            )
        return attempt

    def _outcome(self, delivery: LeasedDelivery, now: int) -> dict[str, Any]:
        """What came of sending, as fields of an ``Attempt``."""
        if not delivery.keys:
            return {"error_code": "no_secret", "final": True}
        body = payload(
            event_id=delivery.event_id,
            kind=delivery.event_type,
            created_at=delivery.event_at,
            about=delivery.about,
        )
        headers = signed_headers(delivery.event_id, now, body, delivery.keys)
        try:
            answer = self._egress.post(delivery.url, body, headers | CONTENT)
        except EgressFailed as error:
            return {"error_code": error.reason, "final": error.reason == "url_not_allowed"}
        status = answer.status_code
        if status in SUCCESS:
            return {"status_code": status}
        return {
            "status_code": status,
            "error_code": f"http_{status}",
            "retry_after": read_retry_after(answer.retry_after),
            "final": status == GONE,
        }
