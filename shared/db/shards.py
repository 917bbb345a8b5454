"""Queries on ``shards``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

PAGE = 500

_SLICES = text("""
SELECT ordinal, state, byte_start, byte_end, first_line, row_count, lines, rows_completed,
       rows_failed, output_key, output_sha256, output_bytes, errors_key, errors_sha256,
       errors_bytes, error_code, error_message
  FROM shards WHERE job_id = :job AND stage = 'generate' AND ordinal > :after
 ORDER BY ordinal LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """A closed slice of a batch as assembly finds it."""

    ordinal: int
    state: str
    byte_start: int
    byte_end: int
    first_line: int
    row_count: int
    lines: list[int] | None
    rows_completed: int
    rows_failed: int
    output_key: str | None
    output_sha256: str | None
    output_bytes: int | None
    errors_key: str | None
    errors_sha256: str | None
    errors_bytes: int | None
    error_code: str | None
    error_message: str | None

    @property
    def has_results(self) -> bool:
        """Whether its worker stored a line for every row."""
        return self.output_key is not None or self.errors_key is not None


def slices_of(connection: Connection, job_id: str) -> Iterator[SliceRecord]:
    """Every slice of a batch in order, a page at a time."""
    after = -1
    while True:
        rows = connection.execute(_SLICES, {"job": job_id, "after": after, "limit": PAGE}).all()
        for row in rows:
            yield SliceRecord(*row)
        if len(rows) < PAGE:
            return
        after = rows[-1].ordinal


def waiting_pools(connection: Connection) -> list[str]:
    """Pools in which a shard waits outside its tenant's window."""
    rows = connection.execute(
        text("""
        WITH RECURSIVE waiting (pool) AS (
            (SELECT pool FROM shards WHERE state = 'queued' AND blocked_n = 0
              ORDER BY pool LIMIT 1)
            UNION ALL
            SELECT (SELECT s.pool FROM shards s
                     WHERE s.state = 'queued' AND s.blocked_n = 0 AND s.pool > w.pool
                     ORDER BY s.pool LIMIT 1)
              FROM waiting w WHERE w.pool IS NOT NULL)
        SELECT pool FROM waiting WHERE pool IS NOT NULL
        """)
    )
    return list(rows.scalars())
