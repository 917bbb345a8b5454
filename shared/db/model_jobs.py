"""Queries on jobs about models, and on what a model was trained on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class ModelJob(NamedTuple):
    """What a job about models has besides what every job has."""

    spec: dict[str, Any]
    detail: dict[str, Any]
    """``training``: how far it is."""
    result: dict[str, Any] | None


class TrainedOn(NamedTuple):
    """A fine-tuning whose files are still there."""

    job_id: str
    spec: dict[str, Any]
    training_file: str
    validation_file: str | None


_MODEL_JOBS = text("""
SELECT id, spec, detail, result FROM jobs
 WHERE tenant_id = :tenant AND id = ANY(:ids) AND kind IN ('evaluation', 'optimization')
   AND deleted_at IS NULL
""")

_PRESENT = """EXISTS (SELECT 1 FROM files f WHERE f.id = {file} AND f.tenant_id = j.tenant_id
                   AND f.deleted_at IS NULL
                   AND (f.expires_at IS NULL OR f.expires_at > clock_timestamp()))"""

# A model may be made of one that was trained: the nearest fine-tuning counts.
_TRAINED_ON = text(f"""
WITH RECURSIVE made (id, job_id, source, depth) AS (
    SELECT m.id, m.job_id, m.base_model, 0 FROM models m
     WHERE m.id = :model AND m.tenant_id = :tenant
    UNION ALL
    SELECT m.id, m.job_id, m.base_model, made.depth + 1
      FROM made JOIN jobs j ON j.id = made.job_id AND j.kind = 'optimization'
      JOIN models m ON m.id = made.source AND m.tenant_id = :tenant
     WHERE made.depth < 16
)
SELECT j.id, j.spec, j.input_file_id, j.validation_file_id
  FROM made JOIN jobs j ON j.id = made.job_id
 WHERE j.tenant_id = :tenant AND j.kind = 'fine_tune' AND j.input_file_id IS NOT NULL
   AND {_PRESENT.format(file="j.input_file_id")}
   AND (j.validation_file_id IS NULL OR {_PRESENT.format(file="j.validation_file_id")})
 ORDER BY made.depth LIMIT 1
""")


def model_jobs_of(
    connection: Connection, tenant_id: str, job_ids: Collection[str]
) -> dict[str, ModelJob]:
    """By job id, for those that are the tenant's and about models."""
    rows = connection.execute(_MODEL_JOBS, {"tenant": tenant_id, "ids": list(job_ids)})
    return {row.id: ModelJob(row.spec, row.detail, row.result) for row in rows}


def trained_on(connection: Connection, tenant_id: str, model_id: str) -> TrainedOn | None:
    """The fine-tuning that the model comes from, as long as the tenant keeps its files."""
    row = connection.execute(_TRAINED_ON, {"tenant": tenant_id, "model": model_id}).one_or_none()
    return None if row is None else TrainedOn(*row)
