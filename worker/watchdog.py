"""Engine children that hang: noticed by their silence, and killed."""

from __future__ import annotations

import time

import structlog

from worker.engines.child import EngineChild
from worker.engines.pool import EnginePool
from worker.stopping import Stopping

log = structlog.get_logger()


class Watchdog:
    """Kills children that load, work or cancel for too long without a word."""

    def __init__(
        self,
        engines: EnginePool,
        stopping: Stopping,
        *,
        idle_seconds: float,
        load_seconds: float,
    ) -> None:
        """``idle_seconds`` is how long a child with rows may be silent."""
        self._engines = engines
        self._stopping = stopping
        self._idle_seconds = idle_seconds
        self._load_seconds = load_seconds
        self._bitten: set[int] = set()

    def bite(self) -> bool:
        """Kills those that hang; True when there were any."""
        now = time.monotonic()
        hung = [child for _, child in self._engines.children() if self._is_hung(child, now)]
        for child in hung:
            log.error("engine_hung", model=child.load.model, pid=child.pid)
            self._bitten.add(child.pid)
            child.kill()
        return bool(hung)

    def has_bitten(self, child: EngineChild) -> bool:
        """Whether this dead child was killed here; asked once, as pids are used again."""
        bitten = child.pid in self._bitten
        self._bitten.discard(child.pid)
        return bitten

    def _is_hung(self, child: EngineChild, now: float) -> bool:
        silent = now - child.last_heard
        if child.state == "loading":
            return silent > self._load_seconds
        if self._stopping.is_overdue(child, now):
            return True
        return bool(child.rows_in_flight) and silent > self._idle_seconds
