"""A worker process's lease: opened, renewed by a thread of its own, and closed."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.backoff import delays
from shared.db.session import autocommit
from shared.ids import new_session_id
from shared.lifecycle import working

log = structlog.get_logger()


class Session:
    """The one heartbeat row of this process.

    A heartbeat that can't reach the database proves nothing: the worker computes on and commits
    when the database is back. Only an answer of "no such lease" ends the session.
    """

    def __init__(
        self,
        database: Engine,
        *,
        pools: Sequence[str],
        heartbeat_seconds: float,
        ttl_seconds: float,
        on_lost: Callable[[], None],
    ) -> None:
        self._database = database
        self._pools = list(pools)
        self._heartbeat_seconds = heartbeat_seconds
        self._ttl_seconds = ttl_seconds
        self._on_lost = on_lost
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost_ids: set[str] = set()
        self.id = ""

    def open(self, *, give_up: Callable[[], bool]) -> bool:
        """Registers this process, waiting for the database until ``give_up`` says True."""
        for delay in delays(base=0.2, cap=5.0):
            try:
                self._register()
                break
            except SQLAlchemyError as error:
                log.warning("database_unreachable", error=type(error).__name__)
            if give_up():
                return False
            time.sleep(delay)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()
        return True

    def is_lost(self, session_id: str) -> bool:
        """Whether that lease of this process is proven dead."""
        return session_id in self._lost_ids

    def drain(self) -> None:
        """Claims nothing more from here on; best effort, the supervisor stops claiming anyway."""
        self._try(lambda c: working.drain_session(c, self.id), "drain_not_recorded")

    def close(self) -> None:
        """Ends the lease at once, so that the reaper needn't wait for it."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=self._heartbeat_seconds)
        self._try(lambda c: working.close_session(c, self.id), "session_not_closed")

    def _try(self, call: Callable[..., None], event: str) -> None:
        try:
            with autocommit(self._database) as connection:
                call(connection)
        except SQLAlchemyError as error:
            log.warning(event, error=type(error).__name__)

    def _register(self) -> None:
        session_id = new_session_id()
        with autocommit(self._database) as connection:
            working.open_session(
                connection,
                session_id=session_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                pools=self._pools,
                ttl_seconds=self._ttl_seconds,
            )
        self.id = session_id
        log.info("session_opened", session=session_id, pools=self._pools)

    def _beat(self) -> None:
        while not self._closing.wait(self._heartbeat_seconds):
            session_id = self.id
            if session_id in self._lost_ids:
                continue
            try:
                with autocommit(self._database) as connection:
                    alive = working.heartbeat(connection, session_id, ttl_seconds=self._ttl_seconds)
            except Exception as error:  # without this thread, the lease ends and nobody knows
                log.warning("heartbeat_failed", error=type(error).__name__)
                continue
            if not alive:
                log.error("session_lost", session=session_id)
                self._lost_ids.add(session_id)
                self._on_lost()
