"""What is deleted and what has become too old, on a thread of its own: a store that is slow to
delete keeps nobody's job waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import PressrunError
from shared.retention import Days
from shared.storage.base import Store
from worker.upkeep.retention import Retention
from worker.upkeep.retention_deletions import Deletions

log = structlog.get_logger()

POLICIES_SECONDS = 60.0
UPLOADS_SECONDS = 3_600.0
ABANDONED_SECONDS = 24 * 3_600.0
"""An object that was begun so long ago and never ended belongs to nobody who lives."""
STOP_SECONDS = 5.0


class RetentionPass:
    """Deletions every ``pause_seconds``, policies every minute, abandoned writing every hour."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        *,
        defaults: Days,
        grace_seconds: float,
        pause_seconds: float,
    ) -> None:
        self._store = store
        self._deletions = Deletions(database, store, grace_seconds=grace_seconds)
        self._retention = Retention(database, store, defaults)
        self._pause_seconds = pause_seconds
        self._closing = threading.Event()
        self._next_policies = 0.0
        self._next_uploads = 0.0
        self._thread = threading.Thread(target=self._loop, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._closing.set()
        self._thread.join(timeout=STOP_SECONDS)

    def run_once(self) -> None:
        """Everything that is due, each failing for itself."""
        self._try("deletions", self._deletions.run)
        now = time.monotonic()
        if now >= self._next_policies:
            self._next_policies = now + POLICIES_SECONDS
            self._try("retention", self._retention.run)
        if now >= self._next_uploads:
            self._next_uploads = now + UPLOADS_SECONDS
            self._try("abandoned_uploads", self._abort_abandoned)

    def _loop(self) -> None:
        while not self._closing.is_set():
            self.run_once()
            self._closing.wait(self._pause_seconds)

    def _abort_abandoned(self) -> None:
        aborted = self._store.abort_uploads("t/", older_than_seconds=ABANDONED_SECONDS)
        if aborted:
            log.info("uploads_aborted", objects=aborted)

    @staticmethod
    def _try(name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except (SQLAlchemyError, PressrunError) as error:
            log.warning("pass_failed", name=name, error=type(error).__name__)
        except Exception:
            log.exception("pass_broken", name=name)
