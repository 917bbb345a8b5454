"""Queries on ``productions`` and their batches: for workers that make them, and for those who
look."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from shared.states import OPEN_JOB, OPEN_SHARD

_PRODUCTION = text("""
SELECT p.rows, p.lines, p.phases, p.round, p.phase, p.found, j.input_tokens, j.output_tokens
  FROM productions p JOIN jobs j ON j.id = p.job_id WHERE p.job_id = :job
""")

_BATCHES = text("""
SELECT b.job_id, b.round, b.phase, b.rows, c.state, c.rows_completed, c.rows_failed,
       c.error_code, c.error_message, c.errors, o.storage_key AS output_key,
       e.storage_key AS errors_key
  FROM production_batches b JOIN jobs c ON c.id = b.job_id
  LEFT JOIN files o ON o.id = c.output_file_id LEFT JOIN files e ON e.id = c.error_file_id
 WHERE b.parent_id = :job ORDER BY b.round, b.phase
""")

_LOOKS = text(f"""
SELECT j.id, j.spec, j.result, j.errors, j.detail, p.rows, p.lines, p.round, p.phase, p.phases,
       open.job_id AS batch_id, open.rows AS batch_rows, open.done AS batch_done
  FROM jobs j JOIN productions p ON p.job_id = j.id
  LEFT JOIN LATERAL (
       SELECT b.job_id, b.rows, c.rows_completed + c.rows_failed + coalesce((
                  SELECT sum(s.rows_completed + s.rows_failed) FROM shards s
                   WHERE s.job_id = c.id AND s.stage = 'generate'
                     AND s.state IN ({OPEN_SHARD})), 0) AS done
         FROM production_batches b JOIN jobs c ON c.id = b.job_id
        WHERE b.parent_id = j.id AND b.ended_at IS NULL AND j.state IN ({OPEN_JOB})
        ORDER BY b.round DESC, b.phase DESC LIMIT 1) open ON true
 WHERE j.tenant_id = :tenant AND j.id = ANY(:ids) AND j.deleted_at IS NULL
""")

_KEPT = text("""
SELECT f.storage_key FROM jobs j JOIN files f ON f.id = j.output_file_id
 WHERE j.id = :job AND f.deleted_at IS NULL
""")

_CHILDREN = text("SELECT job_id FROM production_batches WHERE parent_id = :job")


class ProducedBatch(NamedTuple):
    """A batch of a production, as whoever reads its answers has to know it."""

    job_id: str
    round: int
    phase: int
    rows: int
    state: str
    rows_completed: int
    rows_failed: int
    error_code: str | None
    error_message: str | None
    errors: list[dict[str, Any]] | None
    output_key: str | None
    errors_key: str | None


@dataclass(frozen=True, slots=True)
class Production:
    """A production as its next claim finds it."""

    rows: int
    lines: int
    phases: int
    round: int
    phase: int
    found: dict[str, Any]
    """What its passes left behind."""
    input_tokens: int
    output_tokens: int
    batches: dict[tuple[int, int], ProducedBatch] = field(default_factory=dict)
    """By round and phase."""


class ProductionLook(NamedTuple):
    """What a production has besides what every job has."""

    spec: dict[str, Any]
    """Without the template."""
    aliases: dict[str, str]
    result: dict[str, Any] | None
    errors: list[dict[str, Any]] | None
    rows: int
    lines: int
    round: int
    phase: int
    phases: int
    batch_id: str | None
    """The one that runs."""
    batch_rows: int
    batch_done: int


def production_of(connection: Connection, job_id: str) -> Production:
    """For workers, who hold it."""
    row = connection.execute(_PRODUCTION, {"job": job_id}).one()
    batches = [ProducedBatch._make(one) for one in connection.execute(_BATCHES, {"job": job_id})]
    by_place = {(one.round, one.phase): one for one in batches}
    return Production(**row._mapping, batches=by_place)


def productions_of(
    connection: Connection, tenant_id: str, job_ids: Collection[str]
) -> dict[str, ProductionLook]:
    """By job id, those that are the tenant's productions."""
    rows = connection.execute(_LOOKS, {"tenant": tenant_id, "ids": list(job_ids)})
    return {row.id: _look(row) for row in rows}


def _look(row: Row[Any]) -> ProductionLook:
    spec = {name: value for name, value in row.spec.items() if name != "template"}
    return ProductionLook(
        spec=spec,
        aliases=row.detail.get("aliases", {}),
        result=row.result,
        errors=row.errors,
        rows=row.rows,
        lines=row.lines,
        round=row.round,
        phase=row.phase,
        phases=row.phases,
        batch_id=row.batch_id,
        batch_rows=row.batch_rows or 0,
        batch_done=int(row.batch_done or 0),
    )


def batches_of_production(connection: Connection, job_id: str) -> list[str]:
    """For the cleaner: the jobs whose objects go with the production's."""
    return list(connection.execute(_CHILDREN, {"job": job_id}).scalars())


def kept_output(connection: Connection, job_id: str) -> list[str]:
    """For the cleaner: the key of the output, unless its tenant has deleted that."""
    return list(connection.execute(_KEPT, {"job": job_id}).scalars())
