"""Which shards this process knows that it holds.

The database may say otherwise. A claim is a statement whose answer can be lost after it was done,
and a shard that could not be given back is off the books though nobody else may have it. Under a
live lease either would be held for ever, by a process that never heard of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.lifecycle import working
from shared.lifecycle.working import Claim, Held, ReleaseReason, Watched

log = structlog.get_logger()


class Books:
    """For the supervisor's thread alone: what it claims is on the books before it looks at what
    the database says, and what was closed is off them later than the database was told."""

    def __init__(self) -> None:
        self._held: set[Held] = set()
        self.in_doubt = False
        """Whether more may be held than is known: look, even when nothing runs here."""

    def note(self, claim: Callable[[], list[Claim]]) -> list[Claim]:
        """What ``claim`` returns, which is held from here on. If it raises, who knows."""
        try:
            claims = claim()
        except Exception:
            self.in_doubt = True
            raise
        self._held |= {taken.held for taken in claims}
        return claims

    def closed(self, held: Held) -> None:
        """It should have been committed or given back."""
        self._held.discard(held)
        self.in_doubt = True

    def give_back_strays(
        self, database: Engine, session_id: str, watched: Sequence[Watched]
    ) -> None:
        """Gives back what the session holds, as ``watched`` says, and nobody here has heard of:
        nobody's fault, and no budget is charged. What is not held any more is forgotten."""
        found = {item.held for item in watched}
        strays = sorted(found - self._held)
        self._held &= found
        self.in_doubt = bool(strays)  # until a look has found none
        for held in strays:
            log.warning("stray_given_back", shard=held.shard_id, epoch=held.epoch)
            try:
                with database.begin() as connection:
                    working.release(connection, session_id, held, ReleaseReason.PREEMPTED)
            except SQLAlchemyError as error:
                log.warning("stray_not_given_back", error=type(error).__name__)
                return
