"""The runs of schedules, as upkeep makes them.

``begin_run`` takes what is due, and what somebody began who did not come back; ``accept_run``
makes rows seen, their production accepted and the run producing, in one transaction that is fenced
by the run's epoch; ``schedule_ends`` ends runs whose production has ended.

Lock order: the schedule, then its run. At most one run of a schedule is open.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.ids import new_run_id
from shared.lifecycle.schedule_ends import SUCCEEDED, count_failure, webhook_of
from shared.lifecycle.schedules_seen import see_rows
from shared.lifecycle.stages import BadLine
from shared.lifecycle.webhooks import JobWebhook
from shared.recurrence import next_after
from shared.specs.schedules import (
    MOST_KEPT_RUNS,
    ScheduleSpec,
    recurrence_of,
)

MOST_NAMED = 20
"""Bad rows of a run."""

_DUE = """
       (r.id IS NULL AND (s.run_asked
                          OR s.state = 'active' AND s.next_run_at <= clock_timestamp()))
    OR r.state = 'reading' AND r.lease_until < clock_timestamp()
"""

_PICK = text(f"""
SELECT s.id
  FROM schedules s JOIN tenants t ON t.id = s.tenant_id AND t.disabled_at IS NULL
  LEFT JOIN schedule_runs r ON r.schedule_id = s.id AND r.ended_at IS NULL
 WHERE ({_DUE}) AND (s.readers_out > 0) = coalesce(:alone, s.readers_out > 0)
 ORDER BY s.next_run_at LIMIT 1 FOR UPDATE OF s SKIP LOCKED
""")

# Under the lock, since whoever held it before may have begun the run.
_LOOK = text(f"""
SELECT s.id, s.tenant_id, s.spec, s.webhook, s.state, s.anchor_at, s.next_run_at, s.run_asked,
       s.etag, s.last_modified, s.readers_out, clock_timestamp() AS now, r.id AS run_id, r.epoch
  FROM schedules s LEFT JOIN schedule_runs r ON r.schedule_id = s.id AND r.ended_at IS NULL
 WHERE s.id = :id AND ({_DUE})
""")

_BEGIN = text("""
INSERT INTO schedule_runs (id, schedule_id, tenant_id, state, manual, epoch, lease_until)
VALUES (:run, :schedule, :tenant, 'reading', :manual, 1,
        clock_timestamp() + make_interval(secs => :lease))
""")

_MOVE_ON = text("""
UPDATE schedules SET run_asked = false, next_run_at = :next WHERE id = :schedule
""")

_SEND = text("UPDATE schedules SET readers_out = readers_out + 1 WHERE id = :schedule")
CAME_BACK = text("UPDATE schedules SET readers_out = 0 WHERE id = :schedule AND readers_out > 0")

_TAKE_UP = text("""
UPDATE schedule_runs
   SET epoch = epoch + 1, lease_until = clock_timestamp() + make_interval(secs => :lease)
 WHERE id = :run
""")

_FORGET_RUNS = text("""
DELETE FROM schedule_runs WHERE id IN (
    SELECT id FROM schedule_runs WHERE schedule_id = :schedule AND ended_at IS NOT NULL
     ORDER BY id DESC OFFSET :kept)
""")

_HOLD = text("SELECT id FROM schedules WHERE id = :schedule FOR UPDATE")
_FENCE = text("""
SELECT id FROM schedule_runs
 WHERE id = :run AND epoch = :epoch AND state = 'reading' FOR UPDATE
""")

_READ = text("""
UPDATE schedule_runs
   SET state = :state, lease_until = NULL, rows_found = :found, rows_new = :new,
       rows_left = :left, rows_bad = :bad_n, bad = CAST(:bad AS json), job_id = :job,
       ended_at = CASE WHEN CAST(:job AS text) IS NULL THEN clock_timestamp() END
 WHERE id = :run
""")

_KEEP_MARKS = text("""
UPDATE schedules SET etag = :etag, last_modified = :modified WHERE id = :schedule
""")

FAIL = text("""
UPDATE schedule_runs
   SET state = 'failed', lease_until = NULL, error_code = :code, error_message = :message,
       ended_at = clock_timestamp()
 WHERE id = :run
""")


@dataclass(frozen=True, slots=True)
class RunClaim:
    """A run that is this caller's to read, while nobody else has taken it up."""

    run_id: str
    schedule_id: str
    tenant_id: str
    epoch: int
    spec: ScheduleSpec
    webhook: JobWebhook | None
    etag: str | None
    last_modified: str | None
    readers_lost: int = 0
    """Readers before this one that did not come back, since one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsRead:
    """What a source had."""

    found: int
    new: Sequence[bytes]
    """Hashes of the rows that are taken …"""
    again: Sequence[bytes]
    """… and of those that were known."""
    left: int
    """New ones for the next run."""
    bad: Sequence[BadLine]
    bad_n: int
    etag: str | None
    last_modified: str | None


def begin_run(
    connection: Connection, *, lease_seconds: float, alone: bool | None = None
) -> RunClaim | None:
    """Takes a run that is due, or one that its reader has lost; None: there is none. However many
    times were missed, it is one run. ``alone``: of the schedules whose last reader did not come
    back, to be read beside no other; False: of the rest."""
    picked = connection.execute(_PICK, {"alone": alone}).scalar()
    if picked is None:
        return None
    row = connection.execute(_LOOK, {"id": picked}).one_or_none()
    if row is None:
        return None
    connection.execute(_SEND, {"schedule": row.id})
    if row.run_id is not None:
        connection.execute(_TAKE_UP, {"run": row.run_id, "lease": lease_seconds})
        return _claim(row, row.run_id, row.epoch + 1)
    run_id = new_run_id()
    due = row.state == "active" and row.next_run_at <= row.now
    connection.execute(
        _BEGIN,
        {
            "run": run_id,
            "schedule": row.id,
            "tenant": row.tenant_id,
            "manual": not due,
            "lease": lease_seconds,
        },
    )
    spec = ScheduleSpec.model_validate(row.spec)
    recurrence = recurrence_of(spec)
    following = next_after(recurrence, row.anchor_at, row.now) if due else row.next_run_at
    connection.execute(_MOVE_ON, {"schedule": row.id, "next": following})
    connection.execute(_FORGET_RUNS, {"schedule": row.id, "kept": MOST_KEPT_RUNS - 1})
    return _claim(row, run_id, 1)


def accept_run(
    connection: Connection, claim: RunClaim, rows: RowsRead, production_id: str | None
) -> bool:
    """Makes the rows seen, with their production, which the same transaction submits; None: there
    is nothing new. False means that somebody else has the run, or it is gone: roll back."""
    if not hold_run(connection, claim):
        return False
    see_rows(
        connection,
        owner_id=claim.schedule_id,
        tenant_id=claim.tenant_id,
        run_id=claim.run_id,
        new=rows.new,
        again=rows.again,
        days=claim.spec.remember_days,
    )
    # What is left would not be read again if the source were said to be unchanged.
    marks = (None, None) if rows.left else (rows.etag, rows.last_modified)
    _keep_marks(connection, claim, *marks)
    _mark_read(connection, claim, rows, production_id)
    if production_id is None:
        connection.execute(SUCCEEDED, {"schedule": claim.schedule_id})
    return True


def end_unchanged(connection: Connection, claim: RunClaim) -> bool:
    """The source is as it was when it was read last."""
    if not hold_run(connection, claim):
        return False
    nothing = RowsRead(
        found=0, new=(), again=(), left=0, bad=(), bad_n=0, etag=None, last_modified=None
    )
    _mark_read(connection, claim, nothing, None)
    connection.execute(SUCCEEDED, {"schedule": claim.schedule_id})
    return True


def fail_run(
    connection: Connection, claim: RunClaim, code: str, message: str, *, most_failures: int
) -> bool:
    """Ends a run that made nothing. The last of so many in a row pauses the schedule."""
    if not hold_run(connection, claim):
        return False
    connection.execute(CAME_BACK, {"schedule": claim.schedule_id})
    connection.execute(FAIL, {"run": claim.run_id, "code": code, "message": message})
    count_failure(connection, claim.schedule_id, most_failures)
    return True


def hold_run(connection: Connection, claim: RunClaim) -> bool:
    """Whether the run is still this claim's; it stays so until the transaction ends."""
    connection.execute(_HOLD, {"schedule": claim.schedule_id})
    values = {"run": claim.run_id, "epoch": claim.epoch}
    return connection.execute(_FENCE, values).scalar() is not None


def _mark_read(
    connection: Connection, claim: RunClaim, rows: RowsRead, production_id: str | None
) -> None:
    connection.execute(CAME_BACK, {"schedule": claim.schedule_id})
    connection.execute(
        _READ,
        {
            "run": claim.run_id,
            "state": "unchanged" if production_id is None else "producing",
            "found": rows.found,
            "new": len(rows.new),
            "left": rows.left,
            "bad_n": rows.bad_n,
            "bad": json.dumps([asdict(bad) for bad in rows.bad[:MOST_NAMED]]),
            "job": production_id,
        },
    )


def _keep_marks(
    connection: Connection, claim: RunClaim, etag: str | None, modified: str | None
) -> None:
    values = {"schedule": claim.schedule_id, "etag": etag, "modified": modified}
    connection.execute(_KEEP_MARKS, values)


def _claim(row: Row[Any], run_id: str, epoch: int) -> RunClaim:
    return RunClaim(
        run_id=run_id,
        schedule_id=row.id,
        tenant_id=row.tenant_id,
        epoch=epoch,
        spec=ScheduleSpec.model_validate(row.spec),
        webhook=webhook_of(row.webhook),
        etag=row.etag,
        last_modified=row.last_modified,
        readers_lost=row.readers_out,
    )
