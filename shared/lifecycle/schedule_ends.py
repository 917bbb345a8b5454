"""How runs of schedules end: with their production, and what many failures in a row come to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, text

from shared.lifecycle.schedules_seen import give_back_rows
from shared.lifecycle.webhooks import JobWebhook, tell
from shared.specs.schedules import PAUSED_BY_FAILURES
from shared.states import JobState

SUCCEEDED = text("UPDATE schedules SET failures = 0 WHERE id = :schedule AND failures > 0")

_COUNT_FAILURE = text("""
UPDATE schedules SET failures = failures + 1, etag = NULL, last_modified = NULL
 WHERE id = :schedule RETURNING tenant_id, failures, state, webhook
""")

_PAUSE = text("""
UPDATE schedules
   SET state = 'paused', paused_reason = :reason, run_asked = false, updated_at = clock_timestamp()
 WHERE id = :schedule
""")

_OVER = text("""
SELECT s.id FROM schedule_runs r JOIN schedules s ON s.id = r.schedule_id
  LEFT JOIN jobs j ON j.id = r.job_id
 WHERE r.ended_at IS NULL AND r.state = 'producing' AND (j.id IS NULL OR j.ended_at IS NOT NULL)
 ORDER BY r.id LIMIT :limit FOR UPDATE OF s SKIP LOCKED
""")

_OUTCOMES = text("""
SELECT r.id, r.schedule_id, j.state, j.rows_completed, j.rows_failed, j.error_code,
       j.error_message, j.output_file_id IS NOT NULL AS delivered
  FROM schedule_runs r LEFT JOIN jobs j ON j.id = r.job_id
 WHERE r.schedule_id = ANY(:schedules) AND r.ended_at IS NULL AND r.state = 'producing'
   AND (j.id IS NULL OR j.ended_at IS NOT NULL)
""")

_END = text("""
UPDATE schedule_runs
   SET state = :state, lines_kept = :kept, lines_failed = :failed, error_code = :code,
       error_message = :message, ended_at = clock_timestamp()
 WHERE id = :run
""")


def close_runs(connection: Connection, *, most_failures: int, limit: int = 100) -> int:
    """Ends runs whose production has ended; returns how many. A production that failed and left
    nothing gives its rows back: they are new to the next run."""
    held = connection.execute(_OVER, {"limit": limit}).scalars().all()
    if not held:
        return 0
    rows = connection.execute(_OUTCOMES, {"schedules": list(held)}).all()
    for row in rows:
        _close(connection, row, most_failures)
    return len(rows)


def _close(connection: Connection, row: Row[Any], most_failures: int) -> None:
    succeeded = row.state == JobState.SUCCEEDED
    cancelled = row.state in {JobState.CANCELLED, None}
    state = "succeeded" if succeeded else "cancelled" if cancelled else "failed"
    code, message = row.error_code, row.error_message
    if row.state is None:
        code, message = "production_deleted", "the production was deleted"
    elif row.state == JobState.EXPIRED:
        code, message = "production_expired", "the production's time was up"
    values = {"run": row.id, "state": state, "code": code, "message": message}
    counts = {"kept": row.rows_completed or 0, "failed": row.rows_failed or 0}
    connection.execute(_END, values | counts)
    if state == "failed":
        if not row.delivered:
            give_back_rows(connection, owner_id=row.schedule_id, run_id=row.id)
        count_failure(connection, row.schedule_id, most_failures)
    elif succeeded:
        connection.execute(SUCCEEDED, {"schedule": row.schedule_id})


def count_failure(
    connection: Connection,
    schedule_id: str,
    most_failures: int,
    *,
    reason: str = PAUSED_BY_FAILURES,
) -> None:
    """One more in a row; the last of so many pauses the schedule, and tells so. The caller holds
    it."""
    row = connection.execute(_COUNT_FAILURE, {"schedule": schedule_id}).one()
    if row.state == "active" and row.failures >= most_failures:
        values = {"schedule": schedule_id, "reason": reason}
        connection.execute(_PAUSE, values)
        tell(
            connection,
            tenant_id=row.tenant_id,
            kind="schedule.paused",
            about=schedule_id,
            own=webhook_of(row.webhook),
        )


def webhook_of(stored: dict[str, Any] | None) -> JobWebhook | None:
    """As it is kept with a schedule or a monitor."""
    if stored is None:
        return None
    events = stored.get("events")
    return JobWebhook(stored["url"], None if events is None else tuple(events))
