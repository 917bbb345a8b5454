"""What videos and campaigns were asked for, in short, and their removal.

A spec may be long (a table of audiences, a script), and lists show many jobs: only the members
that are shown are read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.states import OPEN_JOB


class Brief(NamedTuple):
    """Some members of a job's spec, and its result when it has one."""

    asked: dict[str, Any]
    result: dict[str, Any] | None


# Postgres refuses to look into JSON that holds an escaped NUL, which briefs may: those are read
# whole.
_BRIEFS = r"""
SELECT j.id, CAST(j.result AS text) AS result,
       CASE WHEN strpos(CAST(j.spec AS text), '\u0000') > 0 THEN CAST(j.spec AS text)
            ELSE CAST(json_build_object({members}) AS text) END AS asked
  FROM jobs j WHERE j.tenant_id = :tenant AND j.id = ANY(:ids) AND j.deleted_at IS NULL
"""

# Steps that run on in a graph that has its outcome: whoever commits one holds its shard first, then
# its step, then the job. Taken in another order, the two would wait for each other.
_HOLD_RUNNING = text("""
SELECT 1 FROM shards WHERE job_id = :id AND tenant_id = :tenant AND state = 'running'
 ORDER BY id FOR UPDATE
""")

_DELETE = text(f"""
UPDATE jobs SET deleted_at = clock_timestamp(), cleaned_at = NULL, spec = '{{}}', result = NULL,
       metadata = NULL, version = version + 1
 WHERE id = :id AND tenant_id = :tenant AND deleted_at IS NULL AND state NOT IN ({OPEN_JOB})
RETURNING id
""")

_DELETE_STEPS = text("DELETE FROM steps WHERE job_id = :id")


def briefs_of(
    connection: Connection, tenant_id: str, job_ids: Collection[str], *, members: Sequence[str]
) -> dict[str, Brief]:
    """Briefs by job id; ``members`` are names of this program's own, never a caller's."""
    listed = ", ".join(f"'{name}', j.spec -> '{name}'" for name in members)
    statement = text(_BRIEFS.format(members=listed))
    rows = connection.execute(statement, {"tenant": tenant_id, "ids": list(job_ids)})
    return {
        row.id: Brief(
            {name: json.loads(row.asked).get(name) for name in members},
            None if row.result is None else json.loads(row.result),
        )
        for row in rows
    }


def delete_job(connection: Connection, tenant_id: str, job_id: str) -> bool:
    """Forgets what an ended job was asked and what it answered; to its tenant it is gone. False
    when it has not ended or is not the tenant's.

    Its row stays, so that the cleaner looks once more for objects that an attempt left late.
    """
    of_tenant = {"id": job_id, "tenant": tenant_id}
    connection.execute(_HOLD_RUNNING, of_tenant)
    if connection.execute(_DELETE, of_tenant).one_or_none() is None:
        return False
    connection.execute(_DELETE_STEPS, {"id": job_id})
    return True
