"""Queries of the cleaner: what has outlived its use."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.states import OPEN_JOB

LIMIT = 100
ZOMBIE_GRACE = "1 hour"
"""Intermediate objects stay this long after a batch has ended, for zombies to stop writing."""


@dataclass(frozen=True, slots=True)
class EndedBatch:
    """A batch whose intermediate objects can go."""

    tenant_id: str
    job_id: str
    vain_assemblies: int
    """Attempts 1 to this one wrote files that nobody will read."""


def uncleaned_batches(connection: Connection) -> list[EndedBatch]:
    rows = connection.execute(
        text(f"""
        SELECT j.tenant_id, j.id,
               coalesce(CASE s.state WHEN 'succeeded' THEN s.epoch - 1 ELSE s.epoch END, 0)
          FROM jobs j LEFT JOIN shards s ON s.job_id = j.id AND s.stage = 'assemble'
         WHERE j.kind <> 'generate' AND j.cleaned_at IS NULL
           AND j.ended_at < clock_timestamp() - CAST(:grace AS interval)
         ORDER BY j.ended_at LIMIT {LIMIT}
        """),
        {"grace": ZOMBIE_GRACE},
    )
    return [EndedBatch(*row) for row in rows]


def mark_cleaned(connection: Connection, job_id: str) -> None:
    connection.execute(
        text("UPDATE jobs SET cleaned_at = clock_timestamp() WHERE id = :job"), {"job": job_id}
    )


def expired_files(connection: Connection) -> list[tuple[str, str]]:
    """(file id, storage key) of files past their expiry that no open batch reads."""
    rows = connection.execute(
        text(f"""
        SELECT f.id, f.storage_key FROM files f
         WHERE f.deleted_at IS NULL AND f.expires_at IS NOT NULL
           AND f.expires_at <= clock_timestamp()
           AND NOT EXISTS (SELECT 1 FROM jobs j
                            WHERE j.input_file_id = f.id AND j.state IN ({OPEN_JOB}))
         ORDER BY f.expires_at LIMIT {LIMIT}
        """)
    )
    return [(file_id, key) for file_id, key in rows]


def mark_deleted(connection: Connection, file_id: str) -> None:
    connection.execute(
        text(
            "UPDATE files SET deleted_at = clock_timestamp() WHERE id = :id AND deleted_at IS NULL"
        ),
        {"id": file_id},
    )


def forget_old_keys(connection: Connection) -> int:
    """Idempotency keys are kept for 24 hours."""
    return connection.execute(
        text(
            "DELETE FROM idempotency_keys"
            " WHERE created_at < clock_timestamp() - interval '24 hours'"
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
