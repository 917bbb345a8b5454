"""Asking the database until it answers, or until nobody wants the answer any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.backoff import delays
from shared.db.session import is_outage
from worker.session import Session

log = structlog.get_logger()

Result = TypeVar("Result")


class Stale(Exception):
    """The session under which this was computed is dead: nobody wants it any more."""


class Insistence:
    """The patience of threads that commit; it ends with ``let_go`` or with their session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._closing = threading.Event()

    def let_go(self) -> None:
        """Whoever waits gives up."""
        self._closing.set()

    def insist(self, call: Callable[[], Result], session_id: str) -> Result:
        """Calls until the database answers. Raises Stale when the session is proven dead."""
        for delay in delays(base=0.1, cap=5.0):
            try:
                return call()
            except SQLAlchemyError as error:
                if not is_outage(error):
                    raise
                log.warning("commit_postponed", error=type(error).__name__)
            self.pause(delay, session_id)
        raise AssertionError("delays() never ends")

    def pause(self, seconds: float, session_id: str) -> None:
        """Raises Stale as ``insist`` does."""
        if self._closing.wait(seconds) or self._session.is_lost(session_id):
            raise Stale
