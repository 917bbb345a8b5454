"""The database of `up`: the operator's, or an embedded one that is started again when it dies."""

from __future__ import annotations

import time
from pathlib import Path

import structlog

from pressrun.embedded_postgres_server import EmbeddedPostgres, EmbeddedPostgresError
from pressrun.exit_codes import CommandError
from shared.backoff import delay_seconds

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0

log = structlog.get_logger()


class Database:
    """``given_url`` is the operator's, None for an embedded Postgres over ``folder``."""

    def __init__(self, folder: Path, given_url: str | None) -> None:
        """Raises CommandError when there is no Postgres to embed."""
        self._given_url = given_url
        self._server: EmbeddedPostgres | None = None
        self._failures = 0
        self._restart_at: float | None = None
        if given_url is None:
            try:
                self._server = EmbeddedPostgres(folder)
            except EmbeddedPostgresError as error:
                raise CommandError(str(error)) from None

    @property
    def url(self) -> str:
        """SQLAlchemy's; known from ``start`` on."""
        return self._server.url if self._server is not None else self._given_url or ""

    def start(self) -> None:
        """Raises CommandError with the end of Postgres's log."""
        if self._server is not None:
            try:
                self._server.start()
            except EmbeddedPostgresError as error:
                raise CommandError(str(error)) from None

    def supervise(self) -> None:
        """Notices a death and starts the server again, after a growing delay when that fails."""
        if self._server is None or self._server.running:
            return
        if self._restart_at is None:
            self._fail("postgres_died", "it ended")
        elif time.monotonic() >= self._restart_at:
            try:
                self._server.start()
            except EmbeddedPostgresError as error:
                self._fail("postgres_not_restarted", str(error))
            else:
                self._failures, self._restart_at = 0, None

    def _fail(self, event: str, reason: str) -> None:
        self._failures += 1
        delay = delay_seconds(self._failures, base=FIRST_DELAY_SECONDS, cap=LONGEST_DELAY_SECONDS)
        self._restart_at = time.monotonic() + delay
        log.error(event, reason=reason, restart_in_seconds=round(delay, 1))

    def stop(self) -> None:
        """A clean shutdown of the embedded server."""
        if self._server is not None:
            self._server.stop()
