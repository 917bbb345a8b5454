"""The periodic pass about productions: batches that have ended are counted, and what was asked of
a production is asked of its batch. Any number of processes."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.doorbell import Ringer
from shared.lifecycle import working
from shared.pools import UPKEEP


class ProductionPass:
    """Used by the thread of the passes."""

    def __init__(self, database: Engine, ringer: Ringer) -> None:
        self._database = database
        self._ringer = ringer

    def run(self) -> None:
        """Raises SQLAlchemyError."""
        with self._database.begin() as connection:
            ended = working.collect_production_batches(connection)
        if ended:
            self._ringer.ring(UPKEEP)
        with self._database.begin() as connection:
            working.stop_production_batches(connection)
