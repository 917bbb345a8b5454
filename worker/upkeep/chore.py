"""How a shard that a thread of this process runs ends: committed, or given back with the right
budget charged."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.backoff import delay_seconds, delays
from shared.db.session import is_outage
from shared.doorbell import Ringer
from shared.errors import PressrunError, StorageFull, StorageUnavailable
from shared.lifecycle import working
from shared.lifecycle.working import Claim, ReleaseReason
from shared.states import ShardState
from worker.session import Session

log = structlog.get_logger()

RETRY_SECONDS = 2.0
OUTAGE_RETRY_CAP_SECONDS = 60.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass
class Chore:
    """One shard under way; ``interrupted`` is set from the supervisor's thread."""

    claim: Claim
    session_id: str
    interrupted: threading.Event = field(default_factory=threading.Event)


class ChoreEnds:
    """Used by the threads that run chores."""

    def __init__(self, database: Engine, session: Session, ringer: Ringer) -> None:
        self._database = database
        self._session = session
        self._ringer = ringer
        self._closing = threading.Event()

    def close(self) -> None:
        """From here on nobody waits for a database that is away."""
        self._closing.set()

    def judge(self, chore: Chore, error: Exception) -> None:
        """An outage is nobody's fault, and a batch whose rows are done must outlive it; so is a
        disk of this worker's that is full. Other faults are charged."""
        claim = chore.claim
        if _is_passing(error):
            log.warning(
                "chore_postponed", job=claim.job_id, stage=claim.stage, error=type(error).__name__
            )
            pause = delay_seconds(claim.epoch, base=RETRY_SECONDS, cap=OUTAGE_RETRY_CAP_SECONDS)
            self.give_back(chore, ReleaseReason.PREEMPTED, delay=pause)
            return
        code, message = "internal_error", f"{claim.stage} failed"
        if isinstance(error, PressrunError):
            code, message = error.code, error.message
        else:
            log.error("chore_failed", job=claim.job_id, stage=claim.stage, exc_info=error)
        self.give_back(chore, ReleaseReason.ERROR, code, message, delay=RETRY_SECONDS)

    def commit(self, chore: Chore, statements: Callable[[Connection], bool]) -> None:
        """Offers the commit until the database answers or the session is proven dead."""
        for delay in delays(base=0.1, cap=5.0):
            try:
                with self._database.begin() as connection:
                    accepted = statements(connection)
                break
            except SQLAlchemyError as error:
                if not is_outage(error):
                    raise
                log.warning("commit_postponed", error=type(error).__name__)
            if self._closing.wait(delay) or self._session.is_lost(chore.session_id):
                return
        if not accepted:
            log.warning("zombie_commit_refused", shard=chore.claim.shard_id)

    def give_back(
        self,
        chore: Chore,
        reason: ReleaseReason,
        code: str | None = None,
        message: str | None = None,
        *,
        delay: float = 0.0,
    ) -> None:
        def release(connection: Connection) -> bool:
            state = working.release(
                connection,
                chore.session_id,
                chore.claim.held,
                reason,
                code=code,
                message=message,
                delay_seconds=delay,
            )
            if state == ShardState.READY:
                self._ringer.ring(chore.claim.pool)
            return True

        with suppress(SQLAlchemyError):
            self.commit(chore, release)


def _is_passing(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, (StorageUnavailable, StorageFull)) or is_outage(error)
