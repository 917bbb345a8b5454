"""Queries on ``checkpoints``: what a training can go on from, and what its tenant sees of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.db.models import ModelFile

_COLUMNS = """
SELECT id, job_id, step, epoch, prefix, manifest_key, manifest_sha256, files, bytes, metrics, best,
       model_id, CAST(extract(epoch FROM created_at) AS double precision)
  FROM checkpoints
"""
_FILES = 7
"""Which of the columns holds the files."""

_NEWEST = text(f"""
{_COLUMNS} WHERE job_id = :job AND dropped_at IS NULL ORDER BY epoch DESC, step DESC
""")

_PAGE = text(f"""
{_COLUMNS}
 WHERE tenant_id = :tenant AND job_id = :job AND dropped_at IS NULL
   AND (CAST(:after AS text) IS NULL OR (epoch, step) < (
        SELECT a.epoch, a.step FROM checkpoints a
         WHERE a.id = :after AND a.tenant_id = :tenant AND a.job_id = :job))
 ORDER BY epoch DESC, step DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A committed checkpoint whose objects are there; ``created_at`` in Unix seconds."""

    id: str
    job_id: str
    step: int
    epoch: int
    """The attempt that made it."""
    prefix: str
    manifest_key: str
    manifest_sha256: str
    files: tuple[ModelFile, ...]
    """Paths are relative to the checkpoint's folder."""
    bytes: int
    metrics: dict[str, float] = field(default_factory=dict)
    best: bool = False
    model_id: str | None = None
    created_at: float = 0.0


def newest_checkpoints(connection: Connection, job_id: str) -> list[CheckpointRow]:
    """For workers: those that the job may go on from, newest first."""
    return [_read(row) for row in connection.execute(_NEWEST, {"job": job_id})]


def list_checkpoints(
    connection: Connection, tenant_id: str, *, job_id: str, after: str | None, limit: int
) -> list[CheckpointRow]:
    """A tenant's, newest first, those older than the checkpoint ``after``."""
    values = {"tenant": tenant_id, "job": job_id, "after": after, "limit": limit}
    return [_read(row) for row in connection.execute(_PAGE, values)]


def _read(row: Row[Any]) -> CheckpointRow:
    values = list(row)
    values[_FILES] = tuple(ModelFile(**file) for file in values[_FILES])
    return CheckpointRow(*values)
