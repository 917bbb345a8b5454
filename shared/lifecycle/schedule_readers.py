"""Readers of a schedule's source that did not read it: those that come back empty-handed through
no fault of the source, and those that never come back."""

from __future__ import annotations

from sqlalchemy import Connection

from shared.lifecycle.schedule_ends import count_failure
from shared.lifecycle.schedule_runs import CAME_BACK, FAIL, RunClaim, hold_run
from shared.specs.schedules import MOST_LOST_READERS, PAUSED_BY_READERS, SOURCE_UNREADABLE


def postpone_run(connection: Connection, claim: RunClaim) -> bool:
    """The reader is alive, and could not do its work: somebody reads when the lease has ended."""
    if not hold_run(connection, claim):
        return False
    connection.execute(CAME_BACK, {"schedule": claim.schedule_id})
    return True


def give_up_run(connection: Connection, claim: RunClaim) -> bool:
    """Ends a run whose readers were lost one after the other, and pauses its schedule, which is
    told. Resumed, it starts afresh."""
    if not hold_run(connection, claim):
        return False
    message = f"{MOST_LOST_READERS} processes in a row did not come back from reading the source"
    values = {"run": claim.run_id, "code": SOURCE_UNREADABLE, "message": message}
    connection.execute(FAIL, values)
    connection.execute(CAME_BACK, {"schedule": claim.schedule_id})
    count_failure(connection, claim.schedule_id, 0, reason=PAUSED_BY_READERS)
    return True
