"""Jobs whose time is up: a line of each into the archive, by the statement that takes them away."""

from __future__ import annotations

from sqlalchemy import Connection, text

from shared.db.policies import OLD
from shared.db.retention import LEAVES_OBJECTS
from shared.states import OPEN_JOB
from shared.webhook_events import UNANNOUNCED

AT_ONCE = 200
"""Jobs that go in one transaction."""

_COLUMNS = (
    "tenant_id, id, kind, state, endpoint, model, client_id, error_code, rows_total,"
    " rows_completed, rows_failed, input_tokens, output_tokens, created_at, started_at, ended_at"
)

# Trials go after their sweep, batches with their production, trainings after the models that they
# made: what a model shares with a trial's is found by these rows.
_DUE = f"""
SELECT j.* FROM jobs j
 WHERE j.tenant_id = :tenant AND j.ended_at IS NOT NULL AND j.ended_at < {OLD.format(days=":days")}
   AND j.deleted_at IS NULL AND j.state NOT IN ({OPEN_JOB}) AND {{which}}
   AND NOT EXISTS (SELECT 1 FROM shards s WHERE s.job_id = j.id AND s.state = 'running')
   AND NOT EXISTS (SELECT 1 FROM events e WHERE e.job_id = j.id AND {UNANNOUNCED})
   AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.about = j.id
                      AND d.status = 'pending')
 ORDER BY j.ended_at LIMIT {AT_ONCE} FOR UPDATE OF j SKIP LOCKED
"""
_OF_TEXT = f"NOT {LEAVES_OBJECTS}"
_OF_FILES = f"""{LEAVES_OBJECTS} AND j.cleaned_at IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM trials t WHERE t.job_id = j.id)
   AND NOT EXISTS (SELECT 1 FROM production_batches b WHERE b.job_id = j.id)
   AND NOT EXISTS (SELECT 1 FROM production_batches b JOIN jobs c ON c.id = b.job_id
                    WHERE b.parent_id = j.id AND c.state IN ({OPEN_JOB}))
   AND NOT EXISTS (SELECT 1 FROM models m WHERE m.cleaned_at IS NULL
                      AND m.job_id IN (SELECT j.id UNION ALL
                                       SELECT t.job_id FROM trials t WHERE t.parent_id = j.id))
   AND NOT EXISTS (SELECT 1 FROM artifacts a WHERE a.job_id = j.id AND a.id = ANY(:named))"""

_ARCHIVE = f"""
INSERT INTO archived_jobs ({_COLUMNS}) SELECT {_COLUMNS} FROM due
    ON CONFLICT (tenant_id, id) DO NOTHING
"""

_RETIRE = text(f"""
WITH due AS MATERIALIZED ({_DUE.format(which=_OF_TEXT)}), kept AS ({_ARCHIVE})
DELETE FROM jobs j USING due WHERE j.id = due.id
""")

# A production's batches are nobody's to see, and have no line of their own.
_HIDE = text(f"""
WITH due AS MATERIALIZED ({_DUE.format(which=_OF_FILES)}), kept AS ({_ARCHIVE}), gone AS (
    UPDATE jobs j SET deleted_at = clock_timestamp(), spec = '{{}}', result = NULL,
           metadata = NULL, version = j.version + 1
      FROM (SELECT id FROM due UNION ALL
            SELECT b.job_id FROM due JOIN production_batches b ON b.parent_id = due.id) o
     WHERE j.id = o.id)
SELECT count(*) FROM due
""")


def retire_jobs(connection: Connection, tenant_id: str, days: int) -> int:
    """Archives and deletes the oldest of the tenant's calls of text that ended more than ``days``
    ago; returns how many, ``AT_ONCE`` at most."""
    return connection.execute(_RETIRE, {"tenant": tenant_id, "days": days}).rowcount


def hide_jobs(connection: Connection, tenant_id: str, days: int, *, named: set[str]) -> int:
    """Archives the oldest of the tenant's other jobs that ended more than ``days`` ago, and empties
    their rows: to the tenant they are gone. ``named`` are artifacts that open jobs read."""
    values = {"tenant": tenant_id, "days": days, "named": sorted(named)}
    hidden: int = connection.execute(_HIDE, values).scalar_one()
    return hidden
