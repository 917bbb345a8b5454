"""Queries for what tenants' policies end before its job does: files, artifacts, events, usage."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.db.policies import MARKED, OLD
from shared.db.schedules import NAMED_FILES
from shared.webhook_events import UNANNOUNCED

AT_ONCE = 1_000
JOBS_AT_ONCE = 200
OUTPUT_PURPOSES = "'batch_output', 'fine-tune-results', 'production_output'"

_END_FILES = """
UPDATE files SET expires_at = clock_timestamp()
 WHERE id = ANY(ARRAY(
    SELECT f.id FROM files f
     WHERE f.tenant_id = :tenant AND f.deleted_at IS NULL AND f.created_at < {old}
       AND f.purpose {of} ({purposes})
       AND (f.expires_at IS NULL OR f.expires_at > clock_timestamp())
       AND NOT EXISTS (SELECT 1 FROM ({named}) n WHERE n.id = f.id)
     ORDER BY f.created_at LIMIT {limit}))
"""
_END = {
    what: text(
        _END_FILES.format(
            old=OLD.format(days=":days"),
            of=of,
            purposes=OUTPUT_PURPOSES,
            named=NAMED_FILES.format(of_tenant="s.tenant_id = :tenant"),
            limit=AT_ONCE,
        )
    )
    for what, of in (("input_files", "NOT IN"), ("outputs", "IN"))
}

_ENDED = """
SELECT j.id, CAST(j.ended_at AS text) AS ended_at FROM jobs j
 WHERE j.tenant_id = :tenant AND j.ended_at IS NOT NULL AND j.ended_at < {old}
   AND j.ended_at > {mark}
 ORDER BY j.ended_at FETCH FIRST {limit} ROWS WITH TIES
"""
_ENDED_BY_KIND = {
    what: text(
        _ENDED.format(
            old=OLD.format(days=":days"),
            mark=MARKED.format(tenant=":tenant", kind=what),
            limit=JOBS_AT_ONCE,
        )
    )
    for what in ("outputs", "events")
}

_ARTIFACTS = text("""
SELECT id, storage_key FROM artifacts
 WHERE job_id = ANY(:jobs) AND tenant_id = :tenant AND NOT (id = ANY(:named)) LIMIT :limit
""")
_FORGET_ARTIFACTS = text("DELETE FROM artifacts WHERE id = ANY(:ids) AND tenant_id = :tenant")
_ARTIFACT_LEFT = text("SELECT EXISTS (SELECT 1 FROM artifacts WHERE job_id = ANY(:jobs))")

_EVENTS = text(f"""
DELETE FROM events WHERE id = ANY(ARRAY(
    SELECT e.id FROM events e
     WHERE e.job_id = ANY(:jobs) AND e.tenant_id = :tenant AND NOT ({UNANNOUNCED})
     LIMIT {AT_ONCE}))
""")

_DELIVERIES = text(f"""
DELETE FROM webhook_deliveries WHERE id = ANY(ARRAY(
    SELECT d.id FROM webhook_deliveries d
     WHERE d.tenant_id = :tenant AND d.ended_at < {OLD.format(days=":days")} LIMIT {AT_ONCE}))
""")

_USAGE = text(f"""
DELETE FROM usage WHERE ctid = ANY(ARRAY(
    SELECT u.ctid FROM usage u
     WHERE u.tenant_id = :tenant AND u.created_at < {OLD.format(days=":days")} AND u.counted
     LIMIT {AT_ONCE}))
""")

# Limits of a month look at all of its days.
_DAYS = text(f"""
DELETE FROM usage_days
 WHERE tenant_id = :tenant AND day < least(
           CAST({OLD.format(days=":days")} AS date),
           CAST(date_trunc('month', (SELECT clock_timestamp())) AS date))
""")


class EndedJob(NamedTuple):
    """A job that ended longer ago than what it left may be kept."""

    id: str
    ended_at: str
    """ISO 8601."""


class OldArtifact(NamedTuple):
    """An artifact whose time is up."""

    id: str
    storage_key: str


def end_files(connection: Connection, what: str, tenant_id: str, days: int) -> int:
    """Ends the life of the tenant's oldest files of ``what`` (``input_files``: those that it
    brought, ``outputs``: those that jobs made) that no live schedule names; the cleaner removes
    them. Returns how many."""
    return connection.execute(_END[what], {"tenant": tenant_id, "days": days}).rowcount


def ended_jobs(connection: Connection, what: str, tenant_id: str, days: int) -> list[EndedJob]:
    """The first jobs beyond the tenant's mark that ended more than ``days`` ago, in the order in
    which they did, and none without those that ended in the same instant as the last."""
    rows = connection.execute(_ENDED_BY_KIND[what], {"tenant": tenant_id, "days": days})
    return [EndedJob._make(row) for row in rows]


def old_artifacts(
    connection: Connection, tenant_id: str, jobs: list[str], *, named: set[str]
) -> list[OldArtifact]:
    """Some artifacts of these jobs, but for those that open jobs name."""
    values = {
        "tenant": tenant_id,
        "jobs": jobs,
        "named": sorted(named),
        "limit": AT_ONCE,
    }
    return [OldArtifact._make(row) for row in connection.execute(_ARTIFACTS, values)]


def forget_artifacts(connection: Connection, tenant_id: str, ids: list[str]) -> int:
    return connection.execute(_FORGET_ARTIFACTS, {"tenant": tenant_id, "ids": ids}).rowcount


def are_artifacts_left(connection: Connection, jobs: list[str]) -> bool:
    return bool(connection.execute(_ARTIFACT_LEFT, {"jobs": jobs}).scalar())


def forget_events(connection: Connection, tenant_id: str, jobs: list[str]) -> int:
    """Removes a portion of what these jobs told; returns how many events that were."""
    return connection.execute(_EVENTS, {"tenant": tenant_id, "jobs": jobs}).rowcount


def forget_deliveries(connection: Connection, tenant_id: str, days: int) -> int:
    """Removes a portion of the tenant's deliveries that ended so long ago."""
    return connection.execute(_DELIVERIES, {"tenant": tenant_id, "days": days}).rowcount


def forget_usage(connection: Connection, tenant_id: str, days: int) -> int:
    """Removes a portion of the tenant's usage of so long ago that was added up, and then the days
    that it was added to; returns how many rows."""
    values = {"tenant": tenant_id, "days": days}
    gone = connection.execute(_USAGE, values).rowcount
    if gone < AT_ONCE:
        gone += connection.execute(_DAYS, values).rowcount
    return gone
