"""What tenants do with schedules: make, pause, resume, run now, delete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from shared.db.files import hold_file
from shared.db.schedules import count_schedules
from shared.errors import Conflict
from shared.lifecycle.schedules_seen import forget_rows
from shared.lifecycle.webhooks import JobWebhook
from shared.recurrence import first_after, next_after
from shared.specs.schedules import (
    MOST_SCHEDULES,
    PAUSED_BY_TENANT,
    ScheduleSpec,
    clock_of,
    recurrence_of,
)

_NOW = text("SELECT clock_timestamp()")

# Whoever counts holds the tenant, so two at once can't both be the last.
_HOLD_TENANT = text("SELECT id FROM tenants WHERE id = :tenant FOR NO KEY UPDATE")

_CREATE = text("""
INSERT INTO schedules (id, tenant_id, name, spec, webhook, file_ids, anchor_at, next_run_at)
VALUES (:id, :tenant, :name, CAST(:spec AS json), CAST(:webhook AS json), :files, :first, :first)
""")

_HOLD = text("""
SELECT state, spec, file_ids, run_asked, anchor_at, next_run_at, clock_timestamp() AS now
  FROM schedules WHERE id = :id AND tenant_id = :tenant FOR UPDATE
""")

_PAUSE = text("""
UPDATE schedules
   SET state = 'paused', paused_reason = :reason, run_asked = false, updated_at = clock_timestamp()
 WHERE id = :id
""")

_RESUME = text("""
UPDATE schedules
   SET state = 'active', paused_reason = NULL, failures = 0, readers_out = 0,
       next_run_at = :next, updated_at = clock_timestamp()
 WHERE id = :id
""")

_ASK = text("UPDATE schedules SET run_asked = true WHERE id = :id")

_DELETE = text("DELETE FROM schedules WHERE id = :id AND tenant_id = :tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """A schedule to be made, found good."""

    schedule_id: str
    tenant_id: str
    name: str
    spec: ScheduleSpec
    file_ids: Sequence[str]
    """That the template names: in use while the schedule is live."""
    starts_now: bool
    """Due at once, and from then on by ``spec.at``; else ``spec.at`` is its first time."""
    webhook: JobWebhook | None = None


def database_clock(connection: Connection) -> datetime:
    """The only clock that counts."""
    found: datetime = connection.execute(_NOW).scalar_one()
    return found


def create_schedule(connection: Connection, new: NewSchedule) -> None:
    """Raises Conflict when the tenant has as many as it may."""
    connection.execute(_HOLD_TENANT, {"tenant": new.tenant_id})
    if count_schedules(connection, new.tenant_id) >= MOST_SCHEDULES:
        raise Conflict(f"there are {MOST_SCHEDULES} schedules already: delete one first")
    spec, moment = new.spec, database_clock(connection)
    if new.starts_now:
        first = moment
        spec = spec.model_copy(update={"at": clock_of(moment, spec.timezone)})
    else:
        first = first_after(recurrence_of(spec), moment)
    webhook = new.webhook and {"url": new.webhook.url, "events": new.webhook.events}
    connection.execute(
        _CREATE,
        {
            "id": new.schedule_id,
            "tenant": new.tenant_id,
            "name": new.name,
            "spec": spec.model_dump_json(exclude_none=True),
            "webhook": None if webhook is None else json.dumps(webhook),
            "files": list(new.file_ids),
            "first": first,
        },
    )


def pause_schedule(connection: Connection, *, tenant_id: str, schedule_id: str) -> bool:
    """What runs goes on. False: there is none. Pausing again changes nothing."""
    found = connection.execute(_HOLD, {"id": schedule_id, "tenant": tenant_id}).one_or_none()
    if found is not None and found.state == "active":
        connection.execute(_PAUSE, {"id": schedule_id, "reason": PAUSED_BY_TENANT})
    return found is not None


def resume_schedule(connection: Connection, *, tenant_id: str, schedule_id: str) -> bool:
    """What was missed meanwhile is left out: it goes on with the next time. False: there is
    none. Resuming what is active changes nothing. Raises Conflict where a file that its template
    names is gone, which may be while it is paused."""
    found = connection.execute(_HOLD, {"id": schedule_id, "tenant": tenant_id}).one_or_none()
    if found is not None and found.state != "active":
        _hold_files(connection, tenant_id, found.file_ids)
        spec = ScheduleSpec.model_validate(found.spec)
        recurrence = recurrence_of(spec)
        due = max(found.next_run_at, next_after(recurrence, found.anchor_at, found.now))
        connection.execute(_RESUME, {"id": schedule_id, "next": due})
    return found is not None


def ask_run(connection: Connection, *, tenant_id: str, schedule_id: str) -> bool:
    """One run, as soon as no other is open, paused or not. False: there is no such schedule.
    Raises Conflict as ``resume_schedule`` does."""
    found = connection.execute(_HOLD, {"id": schedule_id, "tenant": tenant_id}).one_or_none()
    if found is not None:
        if found.state != "active" and not found.run_asked:
            _hold_files(connection, tenant_id, found.file_ids)
        connection.execute(_ASK, {"id": schedule_id})
    return found is not None


def delete_schedule(connection: Connection, *, tenant_id: str, schedule_id: str) -> bool:
    """It, its runs, and what it remembers; a production of it goes on. False: there is none."""
    values = {"id": schedule_id, "tenant": tenant_id}
    gone = connection.execute(_DELETE, values).rowcount > 0
    # Whoever was accepting a run held the schedule: now its rows are there to be forgotten, too.
    forget_rows(connection, owner_id=schedule_id, tenant_id=tenant_id)
    return gone


def _hold_files(connection: Connection, tenant_id: str, file_ids: Sequence[str]) -> None:
    """They are in use from here on. Raises Conflict."""
    for file_id in file_ids:
        if hold_file(connection, tenant_id, file_id) is None:
            raise Conflict(f"{file_id}, which the template names, is gone: make a new schedule")
