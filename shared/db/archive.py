"""Jobs that were kept for as long as their tenant's policy says: what is left of them, and how they
get there."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.db.policies import OLD
from shared.db.retention import LEAVES_OBJECTS

AT_ONCE = 200
"""Jobs that are looked at in one go."""

_HIDDEN = text(f"""
SELECT j.tenant_id, j.id FROM jobs j
 WHERE j.deleted_at IS NOT NULL
   AND j.deleted_at < (SELECT clock_timestamp()) - make_interval(secs => :grace)
   AND (j.cleaned_at IS NOT NULL OR NOT {LEAVES_OBJECTS})
   AND NOT EXISTS (SELECT 1 FROM deletions d WHERE d.tenant_id = j.tenant_id
                      AND j.id = ANY(d.jobs) AND d.completed_at IS NULL)
   AND NOT EXISTS (SELECT 1 FROM models m WHERE m.cleaned_at IS NULL AND m.job_id = j.id)
   AND NOT EXISTS (SELECT 1 FROM shards s WHERE s.job_id = j.id AND s.state = 'running')
 ORDER BY j.deleted_at LIMIT {AT_ONCE}
""")

_LIVING_FILES = text("""
SELECT f.storage_key FROM files f
 WHERE f.tenant_id = :tenant AND f.deleted_at IS NULL AND f.storage_key ^@ :folder
   AND split_part(f.storage_key, '/', 4) = ANY(:jobs)
""")

_LIST = text("""
SELECT id, kind, state, endpoint, model, client_id, error_code, rows_total, rows_completed,
       rows_failed, input_tokens, output_tokens,
       CAST(extract(epoch FROM created_at) AS double precision) AS created_at,
       CAST(extract(epoch FROM started_at) AS double precision) AS started_at,
       CAST(extract(epoch FROM ended_at) AS double precision) AS ended_at,
       CAST(extract(epoch FROM archived_at) AS double precision) AS archived_at
  FROM archived_jobs a
 WHERE a.tenant_id = :tenant
   AND (CAST(:start AS double precision) IS NULL OR a.ended_at >= to_timestamp(:start))
   AND (CAST(:stop AS double precision) IS NULL OR a.ended_at < to_timestamp(:stop))
   AND (CAST(:after AS text) IS NULL OR (a.ended_at, a.id) > (
        SELECT o.ended_at, o.id FROM archived_jobs o
         WHERE o.tenant_id = :tenant AND o.id = :after))
 ORDER BY a.ended_at, a.id LIMIT :limit
""")

_FORGET = text(f"""
DELETE FROM archived_jobs a
 WHERE a.tenant_id = :tenant
   AND a.id = ANY(ARRAY(SELECT o.id FROM archived_jobs o
                         WHERE o.tenant_id = :tenant AND o.ended_at < {OLD.format(days=":days")}
                         ORDER BY o.ended_at LIMIT 1000))
""")


class ArchivedJob(NamedTuple):
    """What is left of a job; times in Unix seconds."""

    id: str
    kind: str
    state: str
    endpoint: str
    model: str | None
    client_id: str | None
    error_code: str | None
    rows_total: int
    rows_completed: int
    rows_failed: int
    input_tokens: int
    output_tokens: int
    created_at: float
    started_at: float | None
    ended_at: float
    archived_at: float


class HiddenJob(NamedTuple):
    """A job that is gone for its tenant, and has rows and maybe objects still."""

    tenant_id: str
    job_id: str


def hidden_jobs(connection: Connection, *, grace_seconds: float) -> list[HiddenJob]:
    """Those whose files and rows can go: hidden or deleted so long ago, and clean otherwise."""
    rows = connection.execute(_HIDDEN, {"grace": grace_seconds})
    return [HiddenJob._make(row) for row in rows]


def living_files(connection: Connection, tenant_id: str, jobs: Collection[str]) -> list[str]:
    """Keys, in the folders of these jobs, of files that the tenant still has. One look for all of
    them: it passes over every file of the tenant."""
    values = {"tenant": tenant_id, "folder": f"t/{tenant_id}/j/", "jobs": list(jobs)}
    return list(connection.execute(_LIVING_FILES, values).scalars())


def list_archived(
    connection: Connection,
    tenant_id: str,
    *,
    start: float | None,
    stop: float | None,
    after: str | None,
    limit: int,
) -> list[ArchivedJob]:
    """In the order in which they ended, those of ``[start, stop)`` in Unix seconds, beyond the job
    ``after``."""
    values = {
        "tenant": tenant_id,
        "start": start,
        "stop": stop,
        "after": after,
        "limit": limit,
    }
    return [ArchivedJob._make(row) for row in connection.execute(_LIST, values)]


def forget_archived(connection: Connection, tenant_id: str, days: int) -> int:
    """Removes the oldest lines of jobs that ended more than ``days`` ago, a thousand at most."""
    return connection.execute(_FORGET, {"tenant": tenant_id, "days": days}).rowcount
