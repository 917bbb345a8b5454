"""Queries on ``sweeps`` and ``trials``: for workers that search, and for those who look."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from shared.states import OPEN_JOB, JobState

_PRUNED = f"(t.pruned_at IS NOT NULL AND c.state <> '{JobState.SUCCEEDED}')"
"""A trial that came to its end before it heard of it was not pruned."""

_TRIALS = text(f"""
SELECT t.job_id, t.number, t.params, t.value, t.evaluations, {_PRUNED} AS pruned,
       t.ended_at IS NOT NULL AS ended, c.state, c.error_code, c.error_message, c.result,
       CAST(extract(epoch FROM c.ended_at - c.started_at) AS double precision) AS seconds
  FROM trials t JOIN jobs c ON c.id = t.job_id
 WHERE t.parent_id = :parent ORDER BY t.number
""")

_OFFERED = text("SELECT id FROM models WHERE job_id = ANY(:jobs) AND deleted_at IS NULL")

_PRUNABLE = text(f"""
SELECT w.job_id, w.trials, w.metric, w.minimize, t.running
  FROM (SELECT parent_id, array_agg(o.job_id ORDER BY o.number) AS running
          FROM trials o JOIN jobs c ON c.id = o.job_id
         WHERE o.ended_at IS NULL AND c.state = '{JobState.RUNNING}' AND c.stop_reason IS NULL
           AND c.paused_at IS NULL
         GROUP BY parent_id) t
  JOIN sweeps w ON w.job_id = t.parent_id AND w.pruning
  JOIN jobs p ON p.id = w.job_id AND p.state IN ({OPEN_JOB}) AND p.stop_reason IS NULL
 ORDER BY w.job_id
""")

_FINISHED = text("""
SELECT evaluations FROM trials WHERE parent_id = :parent AND value IS NOT NULL ORDER BY number
""")

_EVALUATIONS_SINCE = text("""
SELECT m.step, CASE json_typeof(m.values -> CAST(:metric AS text)) WHEN 'number'
               THEN CAST(m.values ->> CAST(:metric AS text) AS double precision) END AS value
  FROM training_metrics m WHERE m.job_id = :job AND m.step >= :step
 ORDER BY m.step LIMIT :limit
""")

# Trials are jobs of the same tenant, which is what ``:tenant`` is asked of here.
_SUMMARIES = text(f"""
SELECT w.job_id, count(t.job_id) AS made,
       count(*) FILTER (WHERE c.state = '{JobState.SUCCEEDED}') AS finished,
       count(*) FILTER (WHERE {_PRUNED} AND c.state NOT IN ({OPEN_JOB})) AS pruned,
       count(*) FILTER (WHERE NOT {_PRUNED} AND c.state NOT IN ({OPEN_JOB})
                          AND c.state <> '{JobState.SUCCEEDED}') AS failed,
       count(*) FILTER (WHERE c.state IN ({OPEN_JOB})) AS open,
       coalesce(sum(CASE WHEN c.state IN ({OPEN_JOB}) THEN coalesce(c.progress, 0)
                         WHEN t.job_id IS NOT NULL THEN 1 END), 0) / max(w.trials) AS progress,
       (array_agg(json_build_object('job', t.job_id, 'number', t.number, 'params', t.params,
                                    'value', t.value)
                  ORDER BY CASE WHEN w.minimize THEN t.value ELSE -t.value END, t.number)
          FILTER (WHERE t.value IS NOT NULL))[1] AS best
  FROM sweeps w JOIN jobs p ON p.id = w.job_id
  LEFT JOIN trials t ON t.parent_id = w.job_id LEFT JOIN jobs c ON c.id = t.job_id
 WHERE w.job_id = ANY(:ids) AND p.tenant_id = :tenant
 GROUP BY w.job_id
""")

_OF_JOBS = text(f"""
SELECT t.job_id, t.parent_id, t.number, t.params, t.value, {_PRUNED} AS pruned
  FROM trials t JOIN jobs c ON c.id = t.job_id
 WHERE t.job_id = ANY(:ids) AND c.tenant_id = :tenant
""")


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as the search sees it."""

    job_id: str
    number: int
    params: Mapping[str, Any]
    value: float | None
    """Of the model that it delivered; None: it delivered none, or it was not measured."""
    evaluations: tuple[float, ...]
    """The metric's values in their order, once it has ended."""
    pruned: bool
    ended: bool
    """Its end was counted: before that it is open, whatever its job's state."""
    state: str
    error_code: str | None = None
    error_message: str | None = None
    seconds: float | None = None
    """From its first start to its end."""
    model: str | None = None
    """What it has made, unless that was deleted."""
    trained_tokens: int = 0
    result_files: tuple[str, ...] = ()


class Prunable(NamedTuple):
    """A sweep of which trials run that might be stopped."""

    parent_id: str
    trials: int
    metric: str
    minimize: bool
    running: list[str]
    """Jobs, in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """How far a sweep is."""

    finished: int = 0
    pruned: int = 0
    failed: int = 0
    """Cancelled ones too."""
    open: int = 0
    progress: float = 0.0
    best: dict[str, Any] | None = None
    """``{"job", "number", "params", "value"}``"""


class TrialOf(NamedTuple):
    """What a job that is a trial shows of it."""

    parent_id: str
    number: int
    params: dict[str, Any]
    value: float | None
    pruned: bool


@dataclass(frozen=True, slots=True)
class Sweeping:
    """What a page of fine-tuning jobs has to do with sweeps, by job."""

    sweeps: dict[str, SweepSummary] = field(default_factory=dict)
    trials: dict[str, TrialOf] = field(default_factory=dict)


def trials_of(connection: Connection, parent_id: str) -> list[Trial]:
    """For workers: every trial that there is, by number."""
    rows = connection.execute(_TRIALS, {"parent": parent_id}).all()
    jobs = [row.job_id for row in rows]
    offered = set(connection.execute(_OFFERED, {"jobs": jobs}).scalars())
    return [_read(row, offered) for row in rows]


def _read(row: Row[Any], offered: Collection[str]) -> Trial:
    result = row.result or {}
    made = result.get("fine_tuned_model")
    return Trial(
        job_id=row.job_id,
        number=row.number,
        params=row.params,
        value=row.value,
        evaluations=tuple(row.evaluations),
        pruned=row.pruned,
        ended=row.ended,
        state=row.state,
        error_code=row.error_code,
        error_message=row.error_message,
        seconds=row.seconds,
        model=made if made in offered else None,
        trained_tokens=result.get("trained_tokens") or 0,
        result_files=tuple(result.get("result_files") or ()),
    )


def prunable_sweeps(connection: Connection) -> list[Prunable]:
    """For upkeep: of all tenants."""
    return [Prunable._make(row) for row in connection.execute(_PRUNABLE)]


def finished_evaluations(connection: Connection, parent_id: str) -> list[list[float]]:
    """The values of every finished trial, each in the order of its evaluations."""
    return list(connection.execute(_FINISHED, {"parent": parent_id}).scalars())


def evaluations_since(
    connection: Connection, job_id: str, *, metric: str, step: int, limit: int
) -> list[tuple[int, float | None]]:
    """(step, the metric's value if it was measured there) from ``step`` on."""
    values = {"job": job_id, "metric": metric, "step": step, "limit": limit}
    return [(row.step, row.value) for row in connection.execute(_EVALUATIONS_SINCE, values)]


def sweeping(connection: Connection, tenant_id: str, job_ids: Collection[str]) -> Sweeping:
    """Of the tenant's jobs: which are sweeps, which are trials."""
    values = {"tenant": tenant_id, "ids": list(job_ids)}
    summaries = {
        row.job_id: SweepSummary(
            row.finished, row.pruned, row.failed, row.open, float(row.progress), row.best
        )
        for row in connection.execute(_SUMMARIES, values)
    }
    trials = {
        row.job_id: TrialOf(row.parent_id, row.number, row.params, row.value, row.pruned)
        for row in connection.execute(_OF_JOBS, values)
    }
    return Sweeping(summaries, trials)
