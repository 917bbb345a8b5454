"""What those who wait for jobs ask: little, often, and about many at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.db.job_rows import LIVE, JobRow, Standing, facts
from shared.db.jobs import id_column
from shared.db.security import SAID, says_for_whom
from shared.states import OPEN_JOB

_STANDINGS = {
    column: says_for_whom(
        text(f"""
SELECT {facts(Standing._fields, pool=True)} FROM jobs j {LIVE}
 WHERE {SAID} AND j.{column} = :id AND j.tenant_id = :tenant AND j.deleted_at IS NULL
""")
    )
    for column in ("id", "client_id")
}

_MANY = text(f"""
WITH asked AS (
    SELECT * FROM unnest(CAST(:names AS text[]), CAST(:columns AS text[]),
                         CAST(:afters AS bigint[])) AS a (name, col, after)
), found AS (
    SELECT a.name, a.after, j.id FROM asked a JOIN jobs j ON j.id = a.name
     WHERE a.col = 'id' AND j.tenant_id = :tenant AND j.deleted_at IS NULL
    UNION ALL
    SELECT a.name, a.after, j.id FROM asked a
      JOIN jobs j ON j.tenant_id = :tenant AND j.client_id = a.name AND j.deleted_at IS NULL
     WHERE a.col = 'client_id'
)
SELECT found.name, j.id, j.state NOT IN ({OPEN_JOB}) AS ended, j.version,
       CASE WHEN found.after IS NULL OR j.version > found.after THEN shown.facts END AS facts
  FROM found JOIN jobs j ON j.id = found.id {LIVE} CROSS JOIN LATERAL (SELECT {facts()}) shown
""")

_NEWS = text(f"""
SELECT a.id, j.id IS NULL OR j.deleted_at IS NOT NULL OR j.state NOT IN ({OPEN_JOB}) AS ended,
       j.version, (SELECT max(e.id) FROM events e WHERE e.job_id = a.id) AS event
  FROM unnest(CAST(:ids AS text[]), CAST(:versions AS bigint[]), CAST(:events AS bigint[]))
       AS a (id, version, event)
  LEFT JOIN jobs j ON j.id = a.id
 WHERE j.id IS NULL OR j.deleted_at IS NOT NULL OR j.state NOT IN ({OPEN_JOB})
    OR j.version > a.version
    OR EXISTS (SELECT 1 FROM events e WHERE e.job_id = a.id AND e.id > a.event)
""")


class Seen(NamedTuple):
    """Up to where somebody knows a job; None: nothing but its end is news."""

    version: int | None = None
    event: int | None = None


class News(NamedTuple):
    """Where a job is by now."""

    ended: bool
    version: int
    event: int

    def beyond(self, seen: Seen) -> bool:
        """Whether somebody who has ``seen`` that wants to know."""
        return (
            self.ended
            or (seen.version is not None and self.version > seen.version)
            or (seen.event is not None and self.event > seen.event)
        )


@dataclass(frozen=True, slots=True)
class Polled:
    """One of many jobs that were asked for together."""

    id: str
    ended: bool
    version: int
    row: JobRow | None
    """None while its version is the one that the caller knows."""


def get_standing(connection: Connection, tenant_id: str, job_id: str) -> Standing | None:
    """How far the job is, without its place in line and all that is large; None when the tenant has
    no such job. ``job_id`` is ours or the caller's own."""
    statement = _STANDINGS[id_column(job_id)]
    found = connection.execute(statement, {"tenant": tenant_id, "id": job_id}).scalar()
    return None if found is None else Standing._make(json.loads(found))


def poll_jobs(
    connection: Connection,
    tenant_id: str,
    job_ids: Sequence[str],
    after_versions: Mapping[str, int],
) -> dict[str, Polled]:
    """Many jobs by the names that the caller used, ours or their own, without results and places
    in line; those that the tenant has not are left out."""
    rows = connection.execute(
        _MANY,
        {
            "tenant": tenant_id,
            "names": list(job_ids),
            "columns": [id_column(job_id) for job_id in job_ids],
            "afters": [after_versions.get(job_id) for job_id in job_ids],
        },
    )
    return {
        row.name: Polled(
            row.id,
            row.ended,
            row.version,
            None if row.facts is None else JobRow._make(json.loads(row.facts)),
        )
        for row in rows
    }


def news_of(connection: Connection, seen: Mapping[str, Seen]) -> dict[str, News]:
    """Those of the jobs that have ended, are gone, or went on beyond what was seen of them. For
    waiting on jobs already read: it asks for no tenant and tells nothing but that."""
    rows = connection.execute(
        _NEWS,
        {
            "ids": list(seen),
            "versions": [known.version for known in seen.values()],
            "events": [known.event for known in seen.values()],
        },
    )
    return {row.id: News(row.ended, row.version or 0, row.event or 0) for row in rows}
