"""What those who watch a shard are told while it runs: how far it is, and what it says."""

from __future__ import annotations

import time

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.lifecycle import working
from worker.generation import Generation
from worker.session import Session

log = structlog.get_logger()


class Telling:
    """For the supervisor's thread: short statements, which may fail without any harm."""

    def __init__(self, autocommit: Engine, session: Session, generation: Generation) -> None:
        self._autocommit = autocommit
        self._session = session
        self._generation = generation

    def write_steps(self) -> None:
        """Rows have begun to move: their watchers need not wait for the next pass."""
        steps = self._generation.reports.take()
        try:
            with self._autocommit.connect() as connection:
                working.report_steps(connection, self._session.id, steps)
        except SQLAlchemyError as error:
            log.warning("progress_not_written", error=type(error).__name__)

    def tell_text_if_due(self) -> None:
        """What streamed rows have said since."""
        streams = self._generation.streams
        if (due := streams.due_at()) is None or time.monotonic() < due:
            return
        try:
            with self._autocommit.connect() as connection:
                working.add_deltas(connection, self._session.id, streams.take())
        except SQLAlchemyError as error:
            log.warning("text_not_told", error=type(error).__name__)
            streams.postpone()
        else:
            streams.told()
