"""Schedules and monitors, on threads of their own in upkeep: a source that is slow to answer keeps
no other pass waiting. Any number of processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import PressrunError
from worker.upkeep.monitors import Monitors
from worker.upkeep.schedules import ScheduleRuns

log = structlog.get_logger()

AT_ONCE = 4
"""Sources that one process reads at a time."""
MOST_TURNS = 64
"""Of beginning something, in one pass."""
CLEAN_SECONDS = 60.0
STOP_SECONDS = 5.0

T = TypeVar("T")


class FeedPass:
    """Whatever is due, every ``pause_seconds``."""

    def __init__(self, runs: ScheduleRuns, monitors: Monitors, *, pause_seconds: float) -> None:
        self._runs = runs
        self._monitors = monitors
        self._pause_seconds = pause_seconds
        self._closing = threading.Event()
        self._next_clean = 0.0
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._readers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="feed")
        self._thread = threading.Thread(target=self._loop, name="feeds", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begins nothing more; what is read has a moment to end, and is taken up elsewhere."""
        self._closing.set()
        self._thread.join(timeout=STOP_SECONDS)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def run_once(self) -> None:
        """Everything that is due, to its end, each failing for itself."""
        wait(self._begin_all())

    def _loop(self) -> None:
        while not self._closing.is_set():
            self._begin_all()
            self._closing.wait(self._pause_seconds)

    def _begin_all(self) -> list[Future[None]]:
        self._try("runs", self._runs.close)
        begun = self._begin(self._runs.begin, self._runs.run, "run")
        begun += self._begin(self._monitors.begin, self._monitors.run, "monitor")
        if time.monotonic() >= self._next_clean:
            self._next_clean = time.monotonic() + CLEAN_SECONDS
            self._try("clean", self._monitors.clean)
        return begun

    def _begin(
        self, claim: Callable[[], T | None], work: Callable[[T], None], name: str
    ) -> list[Future[None]]:
        """Claims no more than there are threads to work on it: what is claimed must not wait."""
        begun: list[Future[None]] = []
        for _ in range(MOST_TURNS):
            if self._closing.is_set() or not self._room.acquire(timeout=self._pause_seconds):
                break
            found = self._try(name, claim)
            if found is None:
                self._room.release()
                break
            begun.append(self._readers.submit(self._work, name, partial(work, found)))
        return begun

    def _work(self, name: str, call: Callable[[], None]) -> None:
        try:
            self._try(name, call)
        finally:
            self._room.release()

    @staticmethod
    def _try(name: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except (SQLAlchemyError, PressrunError) as error:
            log.warning("feeds_postponed", name=name, error=type(error).__name__)
        except Exception:
            log.exception("feeds_broken", name=name)
        return None
