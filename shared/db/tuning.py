"""Queries on fine-tuning jobs: what is shown of one beside its job, its events, its numbers."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from shared.db.events import EventRow
from shared.db.sweeps import SweepSummary, TrialOf, sweeping

RECENT_STEPS = 8
"""Steps to look back for the newest loss: an evaluation's numbers have none."""


class MetricsRow(NamedTuple):
    """The numbers of one step."""

    step: int
    epoch: float
    """Passes over the data."""
    values: dict[str, float | None]
    created_at: float


class Tuning(NamedTuple):
    """What a fine-tuning job has besides what every job has; times in Unix seconds."""

    spec: dict[str, Any]
    detail: dict[str, Any]
    """``data``: what was found in the files; ``training``: what the training said."""
    result: dict[str, Any] | None
    validation_file_id: str | None
    paused_at: float | None
    recent: list[MetricsRow]
    """Its last steps, newest first."""
    sweep: SweepSummary | None = None
    """Of a job that searches, once its data were found good."""
    trial: TrialOf | None = None
    """Of a job that is a trial."""


_TUNINGS = text(f"""
SELECT j.id, j.spec, j.detail, j.result, j.validation_file_id,
       CAST(extract(epoch FROM j.paused_at) AS double precision) AS paused_at,
       CAST(coalesce(recent.steps, '[]') AS text) AS steps
  FROM jobs j
  LEFT JOIN LATERAL (
       SELECT json_agg(json_build_array(
                  m.step, m.epoch, m.values,
                  CAST(extract(epoch FROM m.created_at) AS double precision))
                ORDER BY m.step DESC) AS steps
         FROM (SELECT * FROM training_metrics t WHERE t.job_id = j.id
                ORDER BY t.step DESC LIMIT {RECENT_STEPS}) m) recent ON true
 WHERE j.tenant_id = :tenant AND j.id = ANY(:ids) AND j.kind = 'fine_tune'
   AND j.deleted_at IS NULL
""")

_METRICS = text("""
SELECT m.step, m.epoch, m.values, CAST(extract(epoch FROM m.created_at) AS double precision)
  FROM jobs j JOIN training_metrics m ON m.job_id = j.id
 WHERE j.tenant_id = :tenant AND j.id = :job AND m.step > :after
 ORDER BY m.step LIMIT :limit
""")

_NEWEST_EVENTS = text("""
SELECT id, type, data, CAST(extract(epoch FROM created_at) AS double precision)
  FROM events
 WHERE tenant_id = :tenant AND job_id = :job AND (CAST(:before AS bigint) IS NULL OR id < :before)
 ORDER BY id DESC LIMIT :limit
""")


def tunings_of(
    connection: Connection, tenant_id: str, job_ids: Collection[str]
) -> dict[str, Tuning]:
    """By job id, for those that are the tenant's and fine-tuning jobs."""
    rows = connection.execute(_TUNINGS, {"tenant": tenant_id, "ids": list(job_ids)})
    known = sweeping(connection, tenant_id, job_ids)
    return {
        row.id: Tuning(
            row.spec,
            row.detail,
            row.result,
            row.validation_file_id,
            row.paused_at,
            [MetricsRow(*step) for step in json.loads(row.steps)],
            known.sweeps.get(row.id),
            known.trials.get(row.id),
        )
        for row in rows
    }


def list_metrics(
    connection: Connection, tenant_id: str, *, job_id: str, after: int, limit: int
) -> list[MetricsRow]:
    """Numbers of the steps beyond ``after``, in their order."""
    values = {"tenant": tenant_id, "job": job_id, "after": after, "limit": limit}
    return [MetricsRow(*row) for row in connection.execute(_METRICS, values)]


def newest_events(
    connection: Connection, tenant_id: str, *, job_id: str, before: int | None, limit: int
) -> list[EventRow]:
    """Newest first, those older than the event ``before``."""
    values = {"tenant": tenant_id, "job": job_id, "before": before, "limit": limit}
    return [EventRow._make(row) for row in connection.execute(_NEWEST_EVENTS, values)]
