"""Queries on ``events``: what happened to a job, in order."""

from __future__ import annotations

from itertools import takewhile
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class EventRow(NamedTuple):
    """One thing that happened; ``created_at`` in Unix seconds."""

    id: int
    type: str
    data: dict[str, Any]
    created_at: float


UNSETTLED_SECONDS = 2.0
"""An event is numbered before it is committed, so a lower number may still become visible while an
older transaction is open. After so long nobody waits for one any more."""

_LIST = text("""
SELECT id, type, data, CAST(extract(epoch FROM created_at) AS double precision),
       xact IS NULL OR xact < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)
       OR created_at < clock_timestamp() - make_interval(secs => :unsettled) AS settled
  FROM events WHERE tenant_id = :tenant AND job_id = :job AND id > :after
 ORDER BY id LIMIT :limit
""")


def list_events(
    connection: Connection, tenant_id: str, *, job_id: str, after: int, limit: int
) -> tuple[list[EventRow], bool]:
    """Oldest first, those after the event ``after`` (0: from the start), and whether that is all
    that there is for now. Where another one might still come between, the list ends for a moment
    before the gap: whoever goes on after its last event misses none."""
    values = {
        "tenant": tenant_id,
        "job": job_id,
        "after": after,
        "limit": limit,
        "unsettled": UNSETTLED_SECONDS,
    }
    rows = connection.execute(_LIST, values).all()
    settled = [EventRow._make(row[:-1]) for row in takewhile(lambda row: row.settled, rows)]
    return settled, len(settled) == len(rows)
