"""Queries on what a batch has made so far: its slices' stored lines, and its final files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, text

from shared.states import OPEN_JOB, OPEN_SHARD

PAGE = 500


class Connect(Protocol):
    """Lends a connection for a query."""

    def __call__(self) -> AbstractContextManager[Connection]: ...


class BatchLook(NamedTuple):
    """A batch, as one who reads its results has to know it."""

    ended: bool
    assembled: bool
    """Its lines are in its final files, where they were given."""
    output_key: str | None
    """None: there is no such file, or it is gone."""
    errors_key: str | None


class SliceLook(NamedTuple):
    """One slice's lines: where they are, or that they are not there yet."""

    ordinal: int
    open: bool
    has_results: bool
    output_key: str | None
    output_bytes: int
    errors_key: str | None
    errors_bytes: int
    """Of a slice that never ran: in the final error file, once there is one."""


_LOOK = text(f"""
SELECT j.state NOT IN ({OPEN_JOB}) AS ended,
       j.stage = 'assemble' AND j.state IN ('succeeded', 'cancelled', 'expired') AS assembled,
       o.storage_key, e.storage_key
  FROM jobs j
  LEFT JOIN files o ON o.id = j.output_file_id AND o.deleted_at IS NULL
       AND (o.expires_at IS NULL OR o.expires_at > clock_timestamp())
  LEFT JOIN files e ON e.id = j.error_file_id AND e.deleted_at IS NULL
       AND (e.expires_at IS NULL OR e.expires_at > clock_timestamp())
 WHERE j.id = :job AND j.tenant_id = :tenant AND j.kind = 'batch' AND j.deleted_at IS NULL
""")

_SLICES = text(f"""
SELECT ordinal, state IN ({OPEN_SHARD}), output_key IS NOT NULL OR errors_key IS NOT NULL,
       output_key, coalesce(output_bytes, 0), errors_key, coalesce(errors_bytes, 0)
  FROM shards
 WHERE job_id = :job AND tenant_id = :tenant AND stage = 'generate' AND ordinal >= :first
 ORDER BY ordinal LIMIT :limit
""")

_BEFORE = text("""
SELECT CAST(coalesce(sum(output_bytes), 0) AS bigint),
       CAST(coalesce(sum(errors_bytes), 0) AS bigint)
  FROM shards
 WHERE job_id = :job AND tenant_id = :tenant AND stage = 'generate' AND ordinal < :first
""")


def look_at_batch(connection: Connection, tenant_id: str, job_id: str) -> BatchLook | None:
    """None when the tenant has no such batch."""
    row = connection.execute(_LOOK, {"tenant": tenant_id, "job": job_id}).one_or_none()
    return None if row is None else BatchLook._make(row)


def bytes_before(
    connection: Connection, tenant_id: str, job_id: str, ordinal: int
) -> tuple[int, int]:
    """Where in the final output and error files the slice's lines begin."""
    values = {"tenant": tenant_id, "job": job_id, "first": ordinal}
    output, errors = connection.execute(_BEFORE, values).one()
    return output, errors


def slices_from(connect: Connect, tenant_id: str, job_id: str, ordinal: int) -> Iterator[SliceLook]:
    """The batch's slices from ``ordinal`` on, a page at a time; no connection is held between."""
    while True:
        values = {"tenant": tenant_id, "job": job_id, "first": ordinal, "limit": PAGE}
        with connect() as connection:
            rows = connection.execute(_SLICES, values).all()
        for row in rows:
            yield SliceLook._make(row)
        if len(rows) < PAGE:
            return
        ordinal = rows[-1].ordinal + 1
