"""Queries of the cleaner: what has outlived its use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.states import OPEN_JOB

TEXT_ENDPOINTS = (
    "'/v1/chat/completions', '/v1/completions', '/v1/embeddings',"
    " '/v1/classifications', '/v1/responses', '/v1/moderations'"
)
"""Rows of these make no files, and bring none along."""
OF_MODELS = "'fine_tune', 'evaluation', 'optimization', 'import'"
"""Kinds of jobs that leave models, or states of making them."""
MAKES_FILES = f"j.endpoint NOT IN ({TEXT_ENDPOINTS})"
LEAVES_OBJECTS = f"(j.kind NOT IN ('generate', 'response') OR {MAKES_FILES})"
"""Jobs to look at once they have ended: the condition of ``ix_jobs_uncleaned``."""
LIMIT = 100
ZOMBIE_GRACE = "1 hour"
"""Intermediate objects stay this long after a job has ended, for zombies to stop writing."""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job whose intermediate objects can go."""

    tenant_id: str
    job_id: str
    is_batch: bool
    is_training: bool
    makes_files: bool
    vain_assemblies: int
    """Attempts 1 to this one wrote files that nobody will read."""
    deleted: bool
    """By its tenant: none of its files is wanted any more."""
    input_key: str | None = None
    """Of a batch of another one's rows: its input, which it may have made itself."""
    is_production: bool = False
    """The batches that it had run go with it."""


@dataclass(frozen=True, slots=True)
class VainAttempts:
    """Attempts 1 to ``last`` of a shard stored files that no artifact names, previews apart."""

    stage: str
    ordinal: int
    shard_id: int
    last: int


# Whoever removes what a job has left says of each object that it did.
_BEING_DELETED = """(j.deleted_at IS NOT NULL AND EXISTS (
    SELECT 1 FROM deletions d WHERE d.tenant_id = j.tenant_id AND j.id = ANY(d.jobs)
       AND d.completed_at IS NULL))"""


def uncleaned_jobs(connection: Connection) -> list[EndedJob]:
    rows = connection.execute(
        text(f"""
        SELECT j.tenant_id, j.id, j.kind = 'batch', j.kind IN ({OF_MODELS}), {MAKES_FILES},
               coalesce(CASE s.state WHEN 'succeeded' THEN s.epoch - 1 ELSE s.epoch END, 0),
               j.deleted_at IS NOT NULL,
               CASE WHEN j.kind = 'batch' AND j.validation_file_id IS NOT NULL
                    THEN (SELECT f.storage_key FROM files f WHERE f.id = j.input_file_id) END,
               j.kind = 'production'
          FROM jobs j LEFT JOIN shards s ON s.job_id = j.id AND s.stage = 'assemble'
         WHERE {LEAVES_OBJECTS} AND j.cleaned_at IS NULL
           AND j.ended_at < clock_timestamp() - CAST(:grace AS interval)
           AND NOT {_BEING_DELETED}
         ORDER BY j.ended_at LIMIT {LIMIT}
        """),
        {"grace": ZOMBIE_GRACE},
    )
    return [EndedJob(*row) for row in rows]


# A shard whose one attempt succeeded has left nothing behind.
_TRIED = """s.stage IN ('generate', 'step')
           AND s.epoch > CASE WHEN s.state = 'succeeded' THEN 1 ELSE 0 END"""


def mark_spotless(connection: Connection) -> int:
    """Jobs that ended at the first try, without previews, are clean as they are: most jobs of one
    row, and there may be as many of them as of pictures."""
    return connection.execute(
        text(f"""
        UPDATE jobs j SET cleaned_at = clock_timestamp()
         WHERE {LEAVES_OBJECTS} AND j.cleaned_at IS NULL
           AND j.kind NOT IN ('batch', 'production', {OF_MODELS})
           AND j.deleted_at IS NULL
           AND j.ended_at < clock_timestamp() - CAST(:grace AS interval)
           AND NOT EXISTS (SELECT 1 FROM shards s WHERE s.job_id = j.id AND {_TRIED})
           AND NOT EXISTS (SELECT 1 FROM artifacts a
                            WHERE a.job_id = j.id AND a.role = 'preview')
        """),
        {"grace": ZOMBIE_GRACE},
    ).rowcount


def vain_attempts(connection: Connection, job_id: str) -> list[VainAttempts]:
    """Of shards that were tried more than once, or to no end."""
    rows = connection.execute(
        text(f"""
        SELECT s.stage, s.ordinal, s.id, s.epoch - CASE WHEN kept.any THEN 1 ELSE 0 END
          FROM shards s
         CROSS JOIN LATERAL (
               SELECT s.state = 'succeeded' OR EXISTS (
                          SELECT 1 FROM artifacts a WHERE a.job_id = s.job_id
                             AND a.shard_id = s.id AND a.role <> 'preview') AS any) kept
         WHERE s.job_id = :job AND {_TRIED} ORDER BY s.id
        """),
        {"job": job_id},
    )
    return [VainAttempts(*row) for row in rows if row[3] > 0]


def previews_of(connection: Connection, job_id: str) -> list[str]:
    """The keys of the job's previews, which are for those who watched it."""
    rows = connection.execute(
        text("SELECT storage_key FROM artifacts WHERE job_id = :job AND role = 'preview'"),
        {"job": job_id},
    )
    return list(rows.scalars())


def forget_previews(connection: Connection, job_id: str) -> None:
    connection.execute(
        text("DELETE FROM artifacts WHERE job_id = :job AND role = 'preview'"), {"job": job_id}
    )


def keys_of_training(connection: Connection, job_id: str) -> list[str]:
    """What a fine-tuning job leaves: the files of its models, checkpoints' among them, and the
    files that its tenant has not deleted. A sweep's model is of the files of a trial's."""
    rows = connection.execute(
        text("""
        SELECT CAST(m.files AS text), NULL FROM models m
         WHERE m.job_id IN (SELECT :job UNION ALL
                            SELECT t.parent_id FROM trials t WHERE t.job_id = :job)
           AND m.deleted_at IS NULL
        UNION ALL
        SELECT NULL, f.storage_key FROM jobs j JOIN files f ON f.tenant_id = j.tenant_id
         WHERE j.id = :job AND f.purpose = 'fine-tune-results' AND f.deleted_at IS NULL
           AND starts_with(f.storage_key, 't/' || j.tenant_id || '/j/' || j.id || '/')
        """),
        {"job": job_id},
    )
    keys = []
    for files, key in rows:
        keys += [key] if files is None else [file["key"] for file in json.loads(files)]
    return keys


@dataclass(frozen=True, slots=True)
class DeletedModel:
    """A model of a tenant's own whose files can go."""

    id: str
    keys: tuple[str, ...]


# Those that nobody can be loading any more. A model that is a checkpoint of an open job stays until
# that has ended, which may go on from it. Of files that a sweep's model shares with a trial's, the
# one that is deleted last takes them along.
_DELETED_MODELS = f"""
SELECT m.id, m.files,
       (SELECT coalesce(json_agg(o.files), '[]') FROM models o
         WHERE o.job_id IN (SELECT t.parent_id FROM trials t WHERE t.job_id = m.job_id
                             UNION ALL
                            SELECT t.job_id FROM trials t WHERE t.parent_id = m.job_id)
           AND o.cleaned_at IS NULL
           AND (o.deleted_at IS NULL OR (o.deleted_at, o.id) > (m.deleted_at, m.id))
       ) AS others
  FROM models m
 WHERE m.deleted_at < clock_timestamp() - CAST(:grace AS interval)
   AND m.cleaned_at IS NULL AND m.job_id IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = m.job_id
                      AND j.state IN ({OPEN_JOB}))
"""
_NOT_RECORDED = """
   AND NOT EXISTS (SELECT 1 FROM deletions d WHERE d.kind = 'model' AND d.target = m.id
                      AND d.completed_at IS NULL)
"""


def deleted_models(connection: Connection) -> list[DeletedModel]:
    """Those whose files can go, and whose deletion nobody wants to have proven."""
    statement = f"{_DELETED_MODELS} {_NOT_RECORDED} ORDER BY m.deleted_at LIMIT {LIMIT}"
    rows = connection.execute(text(statement), {"grace": ZOMBIE_GRACE})
    return [_deleted_model(row) for row in rows]


def deleted_model(
    connection: Connection, model_id: str, *, grace_seconds: float
) -> DeletedModel | None:
    """This one, once its files can go: it was deleted ``grace_seconds`` ago."""
    values = {"grace": f"{grace_seconds} seconds", "id": model_id}
    row = connection.execute(text(f"{_DELETED_MODELS} AND m.id = :id"), values).one_or_none()
    return None if row is None else _deleted_model(row)


def _deleted_model(row: Row[Any]) -> DeletedModel:
    needed = {file["key"] for files in row.others for file in files}
    keys = [file["key"] for file in row.files if file["key"] not in needed]
    return DeletedModel(row.id, tuple(keys))


def mark_model_cleaned(connection: Connection, model_id: str) -> None:
    connection.execute(
        text("UPDATE models SET cleaned_at = clock_timestamp() WHERE id = :id"), {"id": model_id}
    )


def mark_cleaned(connection: Connection, job_id: str) -> None:
    connection.execute(
        text("UPDATE jobs SET cleaned_at = clock_timestamp() WHERE id = :job"), {"job": job_id}
    )


def forget_old_keys(connection: Connection) -> int:
    """Idempotency keys are kept for 24 hours."""
    return connection.execute(
        text(
            "DELETE FROM idempotency_keys"
            " WHERE created_at < (SELECT clock_timestamp()) - interval '24 hours'"
        )
    ).rowcount


def forget_old_sessions(connection: Connection) -> int:
    """Dead sessions of last week that no shard remembers."""
    return connection.execute(
        text("""
        DELETE FROM sessions w
         WHERE w.expires_at IS NULL AND w.ended_at < clock_timestamp() - interval '7 days'
           AND NOT EXISTS (SELECT 1 FROM shards s WHERE s.session_id = w.id)
        """)
    ).rowcount
