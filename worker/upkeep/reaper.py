"""Ending the leases of vanished workers, and never those of live ones after an outage."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine

from shared.lifecycle import working

log = structlog.get_logger()

MASS_SHARE = 0.3
MASS_COUNT = 3


class Reaper:
    """One pass: declare dead what has expired, take back what the dead still hold.

    After an outage of the database every lease looks expired at once, so nothing is declared dead
    until the database has answered for a lease and two heartbeats. If many leases expire together
    all the same, that smells of a fault here rather than there: the pass holds for one more lease
    and says so.
    """

    def __init__(
        self,
        database: Engine,
        *,
        heartbeat_seconds: float,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._grace = ttl_seconds + 2 * heartbeat_seconds
        self._ttl = ttl_seconds
        self._clock = clock
        self._reachable_since: float | None = None
        self._held_since: float | None = None

    def run(self) -> list[str]:
        """Returns the pools that have work again. Raises SQLAlchemyError when there is no
        database, which starts the grace anew."""
        try:
            with self._database.begin() as connection:
                expired, alive = working.expired_sessions(connection)
                if not self._is_mass(len(expired), alive):
                    self._held_since = None
                if expired and self._may_reap(len(expired), alive):
                    dead = working.declare_dead(connection, expired)
                    log.warning("sessions_declared_dead", count=dead)
            with self._database.begin() as connection:
                pools = working.recover_lost(connection)
        except Exception:
            self._reachable_since = self._held_since = None
            raise
        if self._reachable_since is None:
            self._reachable_since = self._clock()
        return pools

    def _may_reap(self, expired: int, alive: int) -> bool:
        now = self._clock()
        if self._reachable_since is None or now - self._reachable_since < self._grace:
            return False
        if not self._is_mass(expired, alive):
            return True
        if self._held_since is None:
            self._held_since = now
            log.error("mass_expiry", expired=expired, alive=alive)
        return now - self._held_since >= self._ttl

    @staticmethod
    def _is_mass(expired: int, alive: int) -> bool:
        return expired > MASS_COUNT and expired > MASS_SHARE * alive
