"""Queries on ``events``: what happened to a job, in order."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class EventRow(NamedTuple):
    """One thing that happened; ``created_at`` in Unix seconds."""

    id: int
    type: str
    data: dict[str, Any]
    created_at: float


_LIST = text("""
SELECT id, type, data, CAST(extract(epoch FROM created_at) AS double precision)
  FROM events WHERE tenant_id = :tenant AND job_id = :job AND id > :after
 ORDER BY id LIMIT :limit
""")


def list_events(
    connection: Connection, tenant_id: str, *, job_id: str, after: int, limit: int
) -> list[EventRow]:
    """Oldest first, those after the event ``after`` (0: from the start)."""
    values = {"tenant": tenant_id, "job": job_id, "after": after, "limit": limit}
    return [EventRow._make(row) for row in connection.execute(_LIST, values)]
