"""Models by name, as the database knows them, remembered for a while."""

from __future__ import annotations

import time

from sqlalchemy import Engine

from shared.db.models import Model, models_by_id
from shared.db.session import autocommit

REMEMBER_SECONDS = 60.0


class ModelCache:
    """Looks models up; what was found is trusted for a minute."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._known: dict[str, tuple[float, Model]] = {}

    def __call__(self, model_id: str) -> Model | None:
        """Raises sqlalchemy's SQLAlchemyError when the database can't be asked."""
        known = self._known.get(model_id)
        if known is not None and time.monotonic() - known[0] < REMEMBER_SECONDS:
            return known[1]
        with autocommit(self._database) as connection:
            found = models_by_id(connection, [model_id]).get(model_id)
        if found is not None:
            self._known[model_id] = (time.monotonic(), found)
        return found
