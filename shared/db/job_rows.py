"""How a job's row is read: which facts, and the SQL that finds each.

A row travels as one JSON array. Drivers spend their time per column, so this costs a third of
what thirty columns would, on the busiest statement of the API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.states import OPEN_JOB, OPEN_SHARD

MAX_POSITION = 1_000
"""Shards ahead are counted up to here, so that looking costs the same in a long queue."""


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
    client_id: str | None = None
    """The caller's own id."""
    version: int = 1
    """Goes up with every change of the row."""
    pool: str | None = None
    """Of the first shard that is still open."""
    now: float = 0.0
    """When this was read, by the database's clock."""
    error_counts: dict[str, int] | None = None
    """Of an assembled batch: how often each code came."""
    alias: str | None = None
    """What the request called ``model``."""
    models: dict[str, str] | None = None
    """Who held the aliases that the request, or the batch's rows, name."""
    batch_detail: dict[str, Any] | None = None
    """What else is known of a batch: its estimate, its commonest error."""


class Standing(NamedTuple):
    """How far a job is: of ``JobRow`` what changes while it runs."""

    id: str
    kind: str
    state: str
    stage: str
    endpoint: str
    rows_total: int
    rows_completed: int
    rows_failed: int
    progress: float | None
    started_at: float | None
    in_progress_at: float | None
    queue_position: int | None
    version: int
    pool: str | None
    now: float


_TIMES = [name for name in JobRow._fields if name.endswith("_at")]


def rivals_ahead(pool: str, tenant: str, own: str) -> str:
    """SQL for how many shards of other tenants go before one of ``tenant`` that waits in ``pool``
    behind ``own`` of its tenant's: of each as many as its weight is owed in the meantime, or all
    that it has. To within a shard of each: who is a little ahead or behind at the moment is left
    out. A function of the database, since requests see nothing of other tenants."""
    return f"pressrun_rivals_ahead({pool}, {tenant}, {own}, {MAX_POSITION})"


_POSITION = f"""(
    SELECT own.n + {rivals_ahead("s.pool", "s.tenant_id", "own.n")}
      FROM shards s
     CROSS JOIN LATERAL (
        SELECT (SELECT count(*) FROM (
                  SELECT 1 FROM shards o WHERE o.pool = s.pool AND o.tenant_id = s.tenant_id
                     AND o.state = 'ready'
                     AND (s.state = 'queued'
                          OR (o.priority, o.ready_seq) < (s.priority, s.ready_seq))
                   LIMIT {MAX_POSITION}) r)
             + (SELECT count(*) FROM (
                  SELECT 1 FROM shards o WHERE o.pool = s.pool AND o.tenant_id = s.tenant_id
                     AND o.state = 'queued' AND o.blocked_n = 0 AND s.state = 'queued'
                     AND (o.priority, o.id) < (s.priority, s.id)
                   LIMIT {MAX_POSITION}) q) AS n) own
     WHERE s.job_id = j.id AND s.state IN ('queued', 'ready') AND s.blocked_n = 0
     ORDER BY s.ordinal LIMIT 1)"""

# Postgres looks into no JSON with an escaped NUL or half a surrogate pair, which labels that a
# fine-tuning has found may hold.
_KNOWN = r"""CASE WHEN CAST(j.detail AS text) = '{{}}' THEN NULL
     WHEN CAST(j.detail AS text) ~ '\\u(0000|d[89a-f])' THEN NULL
     ELSE j.detail -> '{member}' END"""

_SPECIAL = {
    "batch_spec": "CASE WHEN j.kind = 'batch' THEN j.spec END",
    "rows_completed": "j.rows_completed + coalesce(live.completed, 0)",
    "rows_failed": "j.rows_failed + coalesce(live.failed, 0)",
    "progress": "coalesce(j.progress, live.progress)",
    "queue_position": "NULL",
    "pool": "NULL",
    "now": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
    "error_counts": "CASE WHEN j.kind = 'batch' THEN j.detail -> 'error_counts' END",
    "batch_detail": "CASE WHEN j.kind = 'batch' THEN j.detail END",
    "alias": _KNOWN.format(member="alias"),
    "models": _KNOWN.format(member="models"),
} | {name: f"CAST(extract(epoch FROM j.{name}) AS double precision)" for name in _TIMES}


# Slices and steps that have ended are counted on the job, those under way on their shards: a slice
# of graphs counts its rows while it waits for them.
LIVE = f"""
  LEFT JOIN LATERAL (
       SELECT sum(s.rows_completed) AS completed, sum(s.rows_failed) AS failed,
              sum(s.progress) AS progress
         FROM shards s
        WHERE (j.kind = 'batch' AND j.stage = 'generate' OR j.stage = 'step')
          AND j.state = 'running' AND s.job_id = j.id AND s.state IN ({OPEN_SHARD})
          AND s.stage = j.stage) live ON true
"""

_POSITION_IF_QUEUED = f"CASE WHEN j.state = 'queued' THEN least({_POSITION}, {MAX_POSITION}) END"

_POOL_IF_OPEN = f"""CASE WHEN j.state IN ({OPEN_JOB}) THEN (
    SELECT s.pool FROM shards s WHERE s.job_id = j.id AND s.state IN ({OPEN_SHARD})
     ORDER BY s.blocked_n, s.id LIMIT 1) END"""


def facts(
    fields: Sequence[str] = JobRow._fields, *, pool: bool = False, in_line: bool = False
) -> str:
    """The column ``facts``: these fields of the job ``j``, beside ``LIVE``. ``pool``: with the one
    that it waits for or runs in; ``in_line``: with its place there, which costs a look at all who
    wait."""
    columns = (
        _SPECIAL
        | ({"pool": _POOL_IF_OPEN} if pool else {})
        | ({"queue_position": _POSITION_IF_QUEUED} if in_line else {})
    )
    listed = ", ".join(columns.get(name, f"j.{name}") for name in fields)
    return f"CAST(json_build_array({listed}) AS text) AS facts"
