"""Queries on ``steps``: what one does, what the others made, and how far all of them are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

_STEP = text("""
SELECT shard_id, job_id, line, name, needs, endpoint, model, CAST(spec AS text) AS spec, last
  FROM steps WHERE shard_id = :shard
""")

_RESULTS = text("""
SELECT name, CAST(result AS text) AS result FROM steps
 WHERE job_id = :job AND line = :line AND name = ANY(:names) AND result IS NOT NULL
""")

_LIST = text("""
SELECT t.shard_id, t.line, t.name, t.endpoint, t.model, t.needs, s.state, s.pool, s.epoch,
       CASE s.state WHEN 'running' THEN s.progress END, s.error_code, s.error_message,
       CAST(extract(epoch FROM s.created_at) AS double precision),
       CAST(extract(epoch FROM s.started_at) AS double precision),
       CAST(extract(epoch FROM s.ended_at) AS double precision)
  FROM steps t JOIN shards s ON s.id = t.shard_id JOIN jobs j ON j.id = t.job_id
 WHERE t.job_id = :job AND j.tenant_id = :tenant AND j.deleted_at IS NULL
   AND (CAST(:line AS int) IS NULL OR t.line = :line) AND t.shard_id > :after
 ORDER BY t.shard_id LIMIT :limit
""")

# The first failure is the one that the row or the job names.
_GRAPHS = text("""
SELECT DISTINCT ON (t.line) t.line, s.state, t.name, s.error_code, s.error_message,
       CASE WHEN t.last AND s.state = 'succeeded' THEN CAST(t.result AS text) END AS result
  FROM steps t JOIN shards s ON s.id = t.shard_id
 WHERE t.slice_id = :slice AND (t.last OR s.state = 'failed')
 ORDER BY t.line, t.last AND s.state = 'succeeded' DESC, s.state = 'failed' DESC, s.ended_at, s.id
""")

_POOLS_AFTER = text("""
SELECT DISTINCT n.pool
  FROM steps t JOIN steps d ON d.job_id = t.job_id AND d.line = t.line AND t.name = ANY(d.needs)
  JOIN shards n ON n.id = d.shard_id
 WHERE t.shard_id = :shard AND n.state IN ('queued', 'ready') AND n.blocked_n = 0
 UNION
SELECT n.pool FROM steps t JOIN shards n ON n.id = t.slice_id
 WHERE t.shard_id = :shard AND n.state IN ('queued', 'ready') AND n.blocked_n = 0
""")


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step is to do."""

    shard_id: int
    job_id: str
    line: int
    name: str
    needs: list[str]
    endpoint: str
    model: str | None
    body: dict[str, Any]
    """With references to the steps that it needs (``shared.plans.complete``)."""
    last: bool


class StepRow(NamedTuple):
    """A step as whoever looks at its job sees it; times in Unix seconds."""

    shard_id: int
    """Grows in the order of the plan; the cursor of a list."""
    line: int
    name: str
    endpoint: str
    model: str | None
    needs: list[str]
    state: str
    pool: str
    attempts: int
    progress: float | None
    """0 to 1, while it runs and its engine says."""
    error_code: str | None
    error_message: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class GraphOutcome:
    """What became of a batch row that was a graph."""

    line: int
    state: str
    """``succeeded`` with a ``result``, ``failed`` with the step that did, or ``cancelled``."""
    step: str
    error_code: str | None
    error_message: str | None
    result: str | None
    """The last step's result as JSON."""


def step_of(connection: Connection, shard_id: int) -> StepRecord:
    """The step of a claimed shard of stage ``step``."""
    row = connection.execute(_STEP, {"shard": shard_id}).one()
    return StepRecord(
        shard_id=row.shard_id,
        job_id=row.job_id,
        line=row.line,
        name=row.name,
        needs=row.needs,
        endpoint=row.endpoint,
        model=row.model,
        body=json.loads(row.spec),
        last=row.last,
    )


def results_of(
    connection: Connection, job_id: str, line: int, names: Sequence[str]
) -> dict[str, Any]:
    """The decoded results of those of the steps ``names`` that have one."""
    values = {"job": job_id, "line": line, "names": list(names)}
    return {row.name: json.loads(row.result) for row in connection.execute(_RESULTS, values)}


def list_steps(
    connection: Connection,
    tenant_id: str,
    job_id: str,
    *,
    line: int | None = None,
    after: int | None = None,
    limit: int = 100,
) -> list[StepRow]:
    """A page of a job's steps in the order of their plan, those beyond the shard ``after``; of a
    batch, one row's (``line``) or every row's."""
    values = {
        "tenant": tenant_id,
        "job": job_id,
        "line": line,
        "after": after or 0,
        "limit": limit,
    }
    return [StepRow._make(row) for row in connection.execute(_LIST, values)]


def graphs_of(connection: Connection, slice_id: int) -> dict[int, GraphOutcome]:
    """The outcomes of a slice's rows by line; empty for a slice that was not unfolded yet."""
    rows = connection.execute(_GRAPHS, {"slice": slice_id})
    return {
        row.line: GraphOutcome(
            row.line, row.state, row.name, row.error_code, row.error_message, row.result
        )
        for row in rows
    }


def pools_after(connection: Connection, shard_id: int) -> list[str]:
    """Pools in which the end of this step has made something ready to run: worth a doorbell."""
    return list(connection.execute(_POOLS_AFTER, {"shard": shard_id}).scalars())
