"""Queries on ``jobs``, for those who look at them; ``shared.lifecycle`` changes them.

A row travels as one JSON array. Drivers spend their time per column, so this costs a third of
what thirty columns would, on the busiest statement of the API.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, text

from shared.ids import LENGTH
from shared.states import OPEN_JOB, OPEN_SHARD

MAX_POSITION = 1_000
"""Shards ahead are counted up to here, so that looking costs the same in a long queue."""

LATEST = "z" * 26
"""Sorts after the random part of every id, in any collation."""

KIND_PREFIXES = {
    "generate": "job_",
    "batch": "batch_",
    "video": "video_",
    "campaign": "campaign_",
    "fine_tune": "ftjob-",
}


class JobRow(NamedTuple):
    """A job; times in Unix seconds. Counts include the live progress of running shards."""

    id: str
    kind: str
    state: str
    stage: str
    stop_reason: str | None
    endpoint: str
    model: str | None
    batch_spec: dict[str, Any] | None
    metadata: dict[str, str] | None
    input_file_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    error_code: str | None
    error_message: str | None
    error_param: str | None
    errors: list[dict[str, Any]] | None
    rows_total: int
    rows_completed: int
    rows_failed: int
    input_tokens: int
    output_tokens: int
    progress: float | None
    """Of a single row 0 to 1; of a graph, what its running steps add up to."""
    created_at: float
    started_at: float | None
    in_progress_at: float | None
    finalizing_at: float | None
    cancel_requested_at: float | None
    ended_at: float | None
    expires_at: float | None
    queue_position: int | None


_TIMES = [name for name in JobRow._fields if name.endswith("_at")]

_POSITION = f"""(
    SELECT CASE WHEN s.state = 'ready' THEN ahead.ready ELSE ahead.ready + ahead.queued END
      FROM shards s
     CROSS JOIN LATERAL (
        SELECT (SELECT count(*) FROM (
                  SELECT 1 FROM shards o WHERE o.pool = s.pool AND o.state = 'ready'
                     AND (s.state = 'queued'
                          OR CASE WHEN o.tenant_id = s.tenant_id
                                  THEN (o.priority, o.ready_seq) < (s.priority, s.ready_seq)
                                  ELSE o.ready_seq < s.ready_seq END)
                   LIMIT {MAX_POSITION}) r) AS ready,
               (SELECT count(*) FROM (
                  SELECT 1 FROM shards o WHERE o.pool = s.pool AND o.tenant_id = s.tenant_id
                     AND o.state = 'queued' AND o.blocked_n = 0 AND s.state = 'queued'
                     AND (o.priority, o.id) < (s.priority, s.id)
                   LIMIT {MAX_POSITION}) q) AS queued) ahead
     WHERE s.job_id = j.id AND s.state IN ('queued', 'ready') AND s.blocked_n = 0
     ORDER BY s.ordinal LIMIT 1)"""

_SPECIAL = {
    "batch_spec": "CASE WHEN j.kind = 'batch' THEN j.spec END",
    "rows_completed": "j.rows_completed + coalesce(live.completed, 0)",
    "rows_failed": "j.rows_failed + coalesce(live.failed, 0)",
    "progress": "coalesce(j.progress, live.progress)",
    "queue_position": "NULL",
} | {name: f"CAST(extract(epoch FROM j.{name}) AS double precision)" for name in _TIMES}


def _facts(**special: str) -> str:
    columns = _SPECIAL | special
    listed = ", ".join(columns.get(name, f"j.{name}") for name in JobRow._fields)
    return f"CAST(json_build_array({listed}) AS text) AS facts"


# Slices and steps that have ended are counted on the job, those under way on their shards: a slice
# of graphs counts its rows while it waits for them.
_LIVE = f"""
  LEFT JOIN LATERAL (
       SELECT sum(s.rows_completed) AS completed, sum(s.rows_failed) AS failed,
              sum(s.progress) AS progress
         FROM shards s
        WHERE (j.kind = 'batch' AND j.stage = 'generate' OR j.stage = 'step')
          AND j.state = 'running' AND s.job_id = j.id AND s.state IN ({OPEN_SHARD})
          AND s.stage = j.stage) live ON true
"""

_POSITION_IF_QUEUED = f"CASE WHEN j.state = 'queued' THEN least({_POSITION}, {MAX_POSITION}) END"

_GET = text(f"""
SELECT {_facts(queue_position=_POSITION_IF_QUEUED)}, CAST(j.result AS text) AS result
  FROM jobs j {_LIVE}
 WHERE j.id = :id AND j.tenant_id = :tenant AND j.deleted_at IS NULL
""")

# JSONB refuses an escaped NUL and halves of surrogates, which labels may hold.
_LABELLED = r"""CASE WHEN :labels = 'null' THEN w.metadata IS NULL
                WHEN CAST(w.metadata AS text) ~ '\\u(0000|d[89a-f])' THEN false
                ELSE CAST(w.metadata AS jsonb) @> CAST(:labels AS jsonb) END"""

# The index is by tenant and id, and ids begin with their kind: one short walk a kind, then the
# first of all of them.
_LISTS = {
    order: text(f"""
SELECT {_facts()}
  FROM unnest(CAST(:kinds AS text[]), CAST(:lows AS text[]), CAST(:highs AS text[]))
       AS k (kind, low, high)
 CROSS JOIN LATERAL (
       SELECT * FROM jobs w
        WHERE w.tenant_id = :tenant AND w.kind = k.kind AND w.id > k.low AND w.id < k.high
          AND w.deleted_at IS NULL
          AND (CAST(:state AS text) IS NULL OR w.state = :state)
          AND (CAST(:endpoint AS text) IS NULL OR w.endpoint = :endpoint)
          AND (CAST(:labels AS text) IS NULL OR {_LABELLED})
        ORDER BY w.id {order} LIMIT :limit) j
 {_LIVE}
 ORDER BY right(j.id, 26) {order} LIMIT :limit
""")
    for order in ("asc", "desc")
}

_ENDED = text(f"""
SELECT asked.id FROM unnest(CAST(:ids AS text[])) AS asked (id)
  LEFT JOIN jobs j ON j.id = asked.id
 WHERE j.id IS NULL OR j.state NOT IN ({OPEN_JOB})
""")


def get_job(
    connection: Connection, tenant_id: str, job_id: str
) -> tuple[JobRow, str | None] | None:
    """The job, and its result as JSON text; None when the tenant has no such job."""
    row = connection.execute(_GET, {"tenant": tenant_id, "id": job_id}).one_or_none()
    return None if row is None else (JobRow._make(json.loads(row.facts)), row.result)


def list_jobs(
    connection: Connection,
    tenant_id: str,
    *,
    kinds: Sequence[str],
    after: str | None,
    limit: int,
    state: str | None = None,
    endpoint: str | None = None,
    order: str = "desc",
    metadata: dict[str, str] | Literal["none"] | None = None,
) -> list[JobRow]:
    """By time, those beyond the id ``after``; without queue positions. ``order`` is ``asc`` or
    ``desc``, newest first. ``metadata``: only jobs with these labels, or with none at all."""
    moment = None if after is None else after[-LENGTH:]
    low, high = (moment or "", LATEST) if order == "asc" else ("", moment or LATEST)
    values = {
        "tenant": tenant_id,
        "kinds": list(kinds),
        "lows": [KIND_PREFIXES[kind] + low for kind in kinds],
        "highs": [KIND_PREFIXES[kind] + high for kind in kinds],
        "state": state,
        "endpoint": endpoint,
        "limit": limit,
        "labels": None if metadata is None else _labels(metadata),
    }
    rows = connection.execute(_LISTS[order], values)
    return [JobRow._make(json.loads(row.facts)) for row in rows]


def _labels(metadata: dict[str, str] | Literal["none"]) -> str:
    return "null" if metadata == "none" else json.dumps(metadata)


def find_ended(connection: Connection, job_ids: Sequence[str]) -> list[str]:
    """Those of ``job_ids`` that have ended or are gone. For waiting on jobs already read: it asks
    for no tenant and tells nothing but that."""
    return list(connection.execute(_ENDED, {"ids": list(job_ids)}).scalars())
