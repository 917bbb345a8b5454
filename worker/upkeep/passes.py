"""The periodic passes, on one thread; any number of processes may run them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.db.session import autocommit
from shared.db.shards import waiting_pools
from shared.doorbell import Ringer
from shared.errors import PressrunError
from shared.lifecycle import working
from shared.pools import UPKEEP
from worker.upkeep.cleaner import Cleaner
from worker.upkeep.limits_pass import LimitsPass
from worker.upkeep.productions_pass import ProductionPass
from worker.upkeep.reaper import Reaper
from worker.upkeep.sweeps_pass import SweepPass

log = structlog.get_logger()

CLEAN_SECONDS = 60.0


class Passes:
    """Dispatch, expire, sweep and reap every ``pause_seconds``; clean every minute."""

    def __init__(
        self,
        database: Engine,
        ringer: Ringer,
        reaper: Reaper,
        cleaner: Cleaner,
        *,
        window: int,
        pause_seconds: float,
    ) -> None:
        self._database = database
        self._ringer = ringer
        self._reaper = reaper
        self._cleaner = cleaner
        self._window = window
        self._pause_seconds = pause_seconds
        self._sweeps = SweepPass(database, ringer)
        self._productions = ProductionPass(database, ringer)
        self._limits = LimitsPass(database)
        self._closing = threading.Event()
        self._next_clean = 0.0
        self._thread = threading.Thread(target=self._loop, name="passes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._closing.set()
        self._thread.join(timeout=5.0)

    def run_once(self) -> None:
        """Every pass that is due, each failing for itself."""
        self._try("dispatch", self._dispatch)
        self._try("stop", self._stop_due)
        self._try("reap", self._reap)
        self._try("sweeps", self._sweeps.run)
        self._try("usage", self._limits.count)
        self._try("limits", self._limits.settle)
        self._try("productions", self._productions.run)
        if time.monotonic() >= self._next_clean:
            self._next_clean = time.monotonic() + CLEAN_SECONDS
            self._try("clean", self._cleaner.run)

    def _loop(self) -> None:
        while not self._closing.is_set():
            self.run_once()
            self._closing.wait(self._pause_seconds)

    @staticmethod
    def _try(name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except (SQLAlchemyError, PressrunError) as error:
            log.warning("pass_failed", name=name, error=type(error).__name__)
        except Exception:
            log.exception("pass_broken", name=name)

    def _dispatch(self) -> None:
        with autocommit(self._database) as connection:
            pools = waiting_pools(connection)
        for pool in pools:
            with self._database.begin() as connection:
                moved = working.dispatch(connection, pool=pool, window=self._window)
            if moved:
                self._ringer.ring(pool)

    def _stop_due(self) -> None:
        with self._database.begin() as connection:
            stopped = working.expire_overdue(connection) + working.sweep_stopped(connection)
        if stopped:
            self._ringer.ring(UPKEEP)

    def _reap(self) -> None:
        for pool in self._reaper.run():
            self._ringer.ring(pool)
