"""Hears doorbells: a Celery worker with the solo pool, in a daemon thread of the supervisor."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from celery.exceptions import WorkerShutdown
from celery.worker import WorkController
from kombu.asynchronous import set_event_loop

from shared.backoff import delay_seconds
from shared.doorbell_celery import RING_TASK, doorbell_queue, make_celery
from worker.doorbell_consumer import DoorbellConsumer, refuse_compression

STOP_SECONDS = 2.0
BACKOFF_CAP_SECONDS = 5.0

log = structlog.get_logger(__name__)
# Celery finds its event loop in a global of the process while a worker is being made.
_making = threading.Lock()


class Listener:
    """Calls ``on_ring(pool)`` from its own thread for each doorbell of ``pools``.

    Whatever happens to the broker or to Celery, it tries again for ever and nothing is raised;
    an error of ``on_ring`` is logged. ``node_name`` need not be unique: nothing depends on it.
    """

    def __init__(
        self,
        broker_url: str,
        pools: Sequence[str],
        on_ring: Callable[[str], None],
        node_name: str,
    ) -> None:
        """``broker_url`` may be ``""``: then there is nothing to hear."""
        self._broker_url = broker_url
        self._pools = tuple(pools)
        self._on_ring = on_ring
        self._node_name = node_name
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._ready_now = False
        self._worker: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Returns at once; without a broker or pools, no thread is started."""
        if self._thread is not None or not self._broker_url or not self._pools:
            return
        self._thread = threading.Thread(target=self._listen, name="doorbells", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout: float) -> bool:
        """Whether the queues were consumed, for the first time, within ``timeout`` seconds."""
        return self._ready.wait(timeout)

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """No ``on_ring`` begins after this. Returns in two seconds at most: a thread that is stuck
        in a broker's silence is left to end by itself."""
        self._stopping.set()
        if self._thread is None or self._thread is threading.current_thread():
            return
        with contextlib.suppress(Exception):
            # Wakes the loop if it sleeps; in all other places it looks at the event.
            self._worker.hub.call_soon(_shut_down)
        self._thread.join(STOP_SECONDS)

    def _listen(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._ready_now = False
            try:
                self._work()
            except Exception as error:
                log.warning("listener_failed", error=type(error).__name__)
            if self._stopping.is_set():
                return
            failures = 1 if self._ready_now else failures + 1
            log.warning("listener_restarts", failures=failures)
            self._stopping.wait(delay_seconds(failures, base=0.5, cap=BACKOFF_CAP_SECONDS))

    def _work(self) -> None:
        """The life of one Celery worker."""
        refuse_compression()
        app = make_celery(self._broker_url, self._pools)
        # For this thread only: the task machinery looks the task up in the current application.
        app.set_current()
        # Not shared: else every later application of this process would call this listener.
        app.task(name=RING_TASK, shared=False)(self._ring)
        with _making:
            set_event_loop(None)
            self._worker = WorkController(
                app=app,
                hostname=f"{self._node_name}@pressrun",
                pool_cls="solo",
                concurrency=1,
                queues=[doorbell_queue(pool).name for pool in self._pools],
                consumer_cls=partial(DoorbellConsumer, stopping=self._stopping),
                ready_callback=self._on_ready,
                without_gossip=True,
                without_mingle=True,
                without_heartbeat=True,
                task_events=False,
            )
        self._worker.start()

    def _on_ready(self, _consumer: object) -> None:
        self._ready_now = True
        self._ready.set()

    def _ring(self, pool: str) -> None:
        if pool not in self._pools or self._stopping.is_set():
            return
        try:
            self._on_ring(pool)
        except Exception:
            log.exception("on_ring_failed", pool=pool)


def _shut_down() -> None:
    raise WorkerShutdown(0)
