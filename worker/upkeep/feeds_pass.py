"""Schedules and monitors, on threads of their own in upkeep: a source that is slow to answer keeps
no other pass waiting, and one that has cost a reader is read beside no other. Any number of
processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import PressrunError
from worker.upkeep.feeds_readers import Readers
from worker.upkeep.monitors import Monitors
from worker.upkeep.schedules import LEASE_SECONDS, ScheduleRuns

log = structlog.get_logger()

MOST_TURNS = 64
"""Of beginning something, in one pass."""
CLEAN_SECONDS = 60.0
STOP_SECONDS = 5.0
ROOM_SECONDS = LEASE_SECONDS / 3
"""That a source waits to be read alone; the others that are under way then hang."""

T = TypeVar("T")
Claimed = TypeVar("Claimed")


class _Work(Protocol[Claimed]):
    """Schedules, or monitors."""

    def begin(self, *, alone: bool | None) -> Claimed | None: ...

    def run(self, claim: Claimed) -> None: ...


class FeedPass:
    """Whatever is due, every ``pause_seconds``."""

    def __init__(self, runs: ScheduleRuns, monitors: Monitors, *, pause_seconds: float) -> None:
        self._runs = runs
        self._monitors = monitors
        self._pause_seconds = pause_seconds
        self._closing = threading.Event()
        self._next_clean = 0.0
        self._readers = Readers(patience_seconds=LEASE_SECONDS)
        self._thread = threading.Thread(target=self._loop, name="feeds", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begins nothing more; what is read has a moment to end, and is taken up elsewhere."""
        self._closing.set()
        self._readers.close(within_seconds=STOP_SECONDS)
        self._thread.join(timeout=STOP_SECONDS)

    def run_once(self) -> None:
        """Everything that is due, to its end, each failing for itself."""
        self._begin_all()
        self._readers.wait()

    def _loop(self) -> None:
        while not self._closing.is_set():
            self._begin_all()
            self._closing.wait(self._pause_seconds)

    def _begin_all(self) -> None:
        self._try("runs", self._runs.close)
        for alone in (True, False):
            self._begin(self._runs, "run", alone=alone)
            self._begin(self._monitors, "monitor", alone=alone)
        if time.monotonic() >= self._next_clean:
            self._next_clean = time.monotonic() + CLEAN_SECONDS
            self._try("clean", self._monitors.clean)

    def _begin(self, work: _Work[Claimed], name: str, *, alone: bool) -> None:
        """Claims no more than there are threads to work on it: what is claimed must not wait."""
        for _ in range(MOST_TURNS):
            if self._closing.is_set():
                break
            if not self._readers.wait_for_room(within_seconds=self._pause_seconds):
                break
            found = self._try(name, partial(work.begin, alone=alone))
            if found is None:
                break
            if alone:
                self._readers.wait_for_room(within_seconds=ROOM_SECONDS, alone=True)
            self._readers.begin(partial(self._try, name, partial(work.run, found)))
            if alone:
                self._readers.wait_for_room(within_seconds=LEASE_SECONDS, alone=True)

    @staticmethod
    def _try(name: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except (SQLAlchemyError, PressrunError) as error:
            log.warning("feeds_postponed", name=name, error=type(error).__name__)
        except Exception:
            log.exception("feeds_broken", name=name)
        return None
