"""Queries on schedules and their runs: for tenants who look, and for upkeep that reads sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


def _seconds(column: str) -> str:
    return f"CAST(extract(epoch FROM {column}) AS double precision) AS {column.partition('.')[2]}"


_SCHEDULE = f"""
SELECT s.id, s.name, s.spec, s.webhook, s.state, s.paused_reason, s.run_asked, s.failures,
       {_seconds("s.next_run_at")}, {_seconds("s.created_at")}, {_seconds("s.updated_at")},
       r.id AS open_run_id, e.error_code, e.error_message
  FROM schedules s LEFT JOIN schedule_runs r ON r.schedule_id = s.id AND r.ended_at IS NULL
  LEFT JOIN LATERAL (
       SELECT f.error_code, f.error_message FROM schedule_runs f
        WHERE f.schedule_id = s.id AND f.state = 'failed' AND s.failures > 0
        ORDER BY f.id DESC LIMIT 1) e ON true
 WHERE s.tenant_id = :tenant
"""
_GET = text(f"{_SCHEDULE} AND s.id = :id")
_LIST = text(f"""
{_SCHEDULE} AND (CAST(:after AS text) IS NULL OR s.id < :after) ORDER BY s.id DESC LIMIT :limit
""")
_COUNT = text("SELECT count(*) FROM schedules WHERE tenant_id = :tenant")

_RUNS = text(f"""
SELECT r.id, r.state, r.manual, r.rows_found, r.rows_new, r.rows_left, r.rows_bad, r.bad,
       r.lines_kept, r.lines_failed, r.job_id, r.error_code, r.error_message,
       {_seconds("r.created_at")}, {_seconds("r.ended_at")}
  FROM schedule_runs r
 WHERE r.tenant_id = :tenant AND r.schedule_id = :schedule
   AND (CAST(:after AS text) IS NULL OR r.id < :after)
 ORDER BY r.id DESC LIMIT :limit
""")

_SEEN = text("""
SELECT row_hash FROM feed_rows WHERE owner_id = :owner AND row_hash = ANY(:hashes)
""")


NAMED_FILES = """
SELECT unnest(s.file_ids) AS id FROM schedules s
 WHERE {of_tenant}
   AND (s.state = 'active' OR s.run_asked
        OR EXISTS (SELECT 1 FROM schedule_runs r
                    WHERE r.schedule_id = s.id AND r.ended_at IS NULL AND r.state = 'reading'))
"""
"""Files that live schedules name: a run of theirs may come at any time."""

_IS_NAMED = text(f"""
SELECT EXISTS (SELECT 1 FROM ({NAMED_FILES.format(of_tenant="s.tenant_id = :tenant")}) n
                WHERE n.id = :file)
""")


class ScheduleRow(NamedTuple):
    """A schedule; times in Unix seconds."""

    id: str
    name: str
    spec: dict[str, Any]
    webhook: dict[str, Any] | None
    state: str
    paused_reason: str | None
    run_asked: bool
    failures: int
    """In a row."""
    next_run_at: float
    created_at: float
    updated_at: float
    open_run_id: str | None
    """The run that has not ended."""
    error_code: str | None
    """Of the last run that failed; None: no run has, since one did not."""
    error_message: str | None


class RunRow(NamedTuple):
    """One run of a schedule; times in Unix seconds."""

    id: str
    state: str
    manual: bool
    rows_found: int
    rows_new: int
    rows_left: int
    rows_bad: int
    bad: list[dict[str, Any]]
    lines_kept: int
    lines_failed: int
    job_id: str | None
    error_code: str | None
    error_message: str | None
    created_at: float
    ended_at: float | None


def get_schedule(connection: Connection, tenant_id: str, schedule_id: str) -> ScheduleRow | None:
    row = connection.execute(_GET, {"tenant": tenant_id, "id": schedule_id}).one_or_none()
    return None if row is None else ScheduleRow._make(row)


def list_schedules(
    connection: Connection, tenant_id: str, *, after: str | None, limit: int
) -> list[ScheduleRow]:
    """Newest first."""
    values = {"tenant": tenant_id, "after": after, "limit": limit}
    return [ScheduleRow._make(row) for row in connection.execute(_LIST, values)]


def count_schedules(connection: Connection, tenant_id: str) -> int:
    """How many the tenant has."""
    found: int = connection.execute(_COUNT, {"tenant": tenant_id}).scalar_one()
    return found


def is_named_by_schedule(connection: Connection, tenant_id: str, file_id: str) -> bool:
    """Whether a live schedule names this file."""
    values = {"tenant": tenant_id, "file": file_id}
    return bool(connection.execute(_IS_NAMED, values).scalar_one())


def list_runs(
    connection: Connection, tenant_id: str, schedule_id: str, *, after: str | None, limit: int
) -> list[RunRow]:
    """Newest first."""
    values = {"tenant": tenant_id, "schedule": schedule_id, "after": after, "limit": limit}
    return [RunRow._make(row) for row in connection.execute(_RUNS, values)]


def seen_before(connection: Connection, owner_id: str, hashes: Sequence[bytes]) -> set[bytes]:
    """For upkeep: those of ``hashes`` that a schedule or monitor knows."""
    rows = connection.execute(_SEEN, {"owner": owner_id, "hashes": list(hashes)})
    return {bytes(found) for found in rows.scalars()}
