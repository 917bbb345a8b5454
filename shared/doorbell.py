"""Doorbells: "this pool may have work". Ringing never waits, and a bell may be lost: workers poll.

``Ringer`` is for those who make work; ``doorbell_celery`` is what it and the listener share.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

import structlog

from shared.backoff import delay_seconds
from shared.pools import is_pool_name

if TYPE_CHECKING:
    from shared.doorbell_publisher import Publisher

SPACING_SECONDS = 0.01
BUSY_SPACING_SECONDS = 0.1
BUSY_RINGS = 3
"""So many rings while one waits: work keeps coming, and workers look again by themselves."""
MOST_POOLS = 64
BACKOFF_BASE_SECONDS = 0.1
BACKOFF_CAP_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RingCounts:
    """Since this process began: doorbells that the broker took; rings that were not passed on,
    nearly all because one of the same pool was waiting already; tries to publish that failed."""

    rung: int
    dropped: int
    failed: int


class Ringer:
    """Rings the workers of a pool. Threads share it; a forked process may go on using it."""

    def __init__(self, broker_url: str) -> None:
        """``""`` means no doorbells: every ring is ignored. Starts no thread and connects to
        nothing before the first ring."""
        self._broker_url = broker_url
        # Sockets of the process we were forked from: to close them would close them there.
        self._inherited: list[Publisher] = []
        self._publisher: Publisher | None = None
        self._begin()
        itself = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _begin_again(itself()))

    def ring(self, pool: str) -> None:
        """Returns at once, and never raises. One waiting doorbell per pool is enough."""
        if not self._broker_url:
            return
        with self._changed:
            if self._closing or pool in self._waiting or not self._may_wait(pool):
                self._dropped += 1
                self._merged[pool] = self._merged.get(pool, 0) + 1
                return
            busy = self._merged.pop(pool, 0) >= BUSY_RINGS
            spacing = BUSY_SPACING_SECONDS if busy else SPACING_SECONDS
            self._waiting[pool] = self._rung_at.get(pool, -math.inf) + spacing
            self._ensure_thread()
            self._changed.notify()

    def close(self, timeout: float = 2.0) -> None:
        """Rings what is waiting, once, and ends the thread; gives up after ``timeout`` seconds.

        Later rings are dropped.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    @property
    def counts(self) -> RingCounts:
        with self._changed:
            return RingCounts(self._rung, self._dropped, self._failed)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, float] = {}  # pool → not before, on the monotonic clock
        self._rung_at: dict[str, float] = {}
        self._merged: dict[str, int] = {}  # pool → rings since one of them began to wait
        self._paused_until = 0.0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._rung = self._dropped = self._failed = 0
        if self._publisher is not None:
            self._inherited.append(self._publisher)
            self._publisher = None

    def _may_wait(self, pool: str) -> bool:
        return len(self._waiting) < MOST_POOLS and is_pool_name(pool)

    def _ensure_thread(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._publish_all, name="ringer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the machine has no thread left; the next ring tries again
            self._thread = None

    def _publish_all(self) -> None:
        failures = 0
        while (pool := self._next()) is not None:
            if self._publish(pool, failures):
                failures = 0
                continue
            failures += 1
            with self._changed:
                if self._closing:
                    break
                self._waiting.setdefault(pool, 0.0)
                pause = delay_seconds(failures, base=BACKOFF_BASE_SECONDS, cap=BACKOFF_CAP_SECONDS)
                self._paused_until = time.monotonic() + pause
        if self._publisher is not None:
            self._publisher.close()

    def _next(self) -> str | None:
        """Waits for the next pool to ring; None when all is rung and we are closing."""
        with self._changed:
            while True:
                wait = None
                if self._waiting:
                    pool, due = min(self._waiting.items(), key=itemgetter(1))
                    wait = max(due, self._paused_until) - time.monotonic()
                    if wait <= 0 or self._closing:
                        # Before it is published: who rings from now on wants another bell.
                        del self._waiting[pool]
                        return pool
                elif self._closing:
                    return None
                self._changed.wait(wait)

    def _publish(self, pool: str, failures: int) -> bool:
        try:
            if self._publisher is None:
                # Here, on the ringer's thread: Celery takes a while to import.
                from shared.doorbell_publisher import Publisher

                self._publisher = Publisher(self._broker_url)
            self._publisher.publish(pool)
        except Exception as error:
            with self._changed:
                self._failed += 1
            if not failures:
                log.warning("doorbell_failed", pool=pool, error=type(error).__name__)
            return False
        if failures:
            log.info("doorbell_works_again", pool=pool, failures=failures)
        with self._changed:
            self._rung += 1
            if len(self._rung_at) >= MOST_POOLS:
                self._rung_at.clear()
            self._rung_at[pool] = time.monotonic()
        return True


def _begin_again(ringer: Ringer | None) -> None:
    """In a forked child, where only the thread that forked is left, locks may be held for ever."""
    if ringer is not None:
        ringer._begin()
