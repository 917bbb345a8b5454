"""Removing rows for good, a portion at a time: each call is a short transaction's worth, finds its
rows by an index, and says how many of which table went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from shared.db.tables import metadata

AT_ONCE = 1_000
"""Rows of one table that go in one transaction."""
JOBS_AT_ONCE = 200

Removed = dict[str, int]
"""How many rows, by table."""

_KEPT = frozenset({"tenants", "deletions", "deletion_objects"})
"""The tenant itself goes last, the proof stays."""


class _Reference(NamedTuple):
    """A column that holds ids of jobs, in a table whose rows go with their job."""

    table: str
    column: str


def _references() -> Iterator[_Reference]:
    """Those that others point to come last: steps before their shards."""
    for table in reversed(metadata.sorted_tables):
        for key in table.foreign_keys:
            if key.column.table.name == "jobs" and key.ondelete == "CASCADE":
                yield _Reference(table.name, key.parent.name)


def _of_tenants() -> Iterator[str]:
    """Tables with rows of tenants that no job takes along."""
    with_jobs = {reference.table for reference in _references()} - {"idempotency_keys"}
    for table in reversed(metadata.sorted_tables):
        if "tenant_id" in table.columns and table.name not in with_jobs | _KEPT:
            yield table.name


_PORTION = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {which} LIMIT :limit))
"""


def _portion(table: str, which: str) -> str:
    # Names are those of this program's own tables.
    return _PORTION.format(table=table, which=which)


REFERENCES = tuple(_references())
OF_TENANTS = tuple(name for name in _of_tenants() if name != "jobs")
_BY_JOB = {
    reference: text(_portion(reference.table, f"{reference.column} = ANY(:jobs)"))
    for reference in REFERENCES
}
_TOLD = {
    reference: text(_portion(reference.table, f"{reference.column} = ANY(:jobs)"))
    for reference in (_Reference("deltas", "job_id"), _Reference("webhook_deliveries", "about"))
}
_BY_TENANT = {table: text(_portion(table, "tenant_id = :tenant")) for table in OF_TENANTS}

_JOBS = text("DELETE FROM jobs WHERE id = ANY(:jobs)")
_JOBS_OF_TENANT = text("""
SELECT id FROM jobs WHERE tenant_id = :tenant ORDER BY id LIMIT :limit
""")

# Whoever fails together: an endpoint, or an origin that the tenant's jobs named.
_CIRCUITS = text("""
DELETE FROM webhook_circuits c
 WHERE starts_with(c.key, :tenant || ' ')
    OR c.key IN (SELECT w.id FROM webhook_endpoints w WHERE w.tenant_id = :tenant)
""")

_EMPTY_FILES = text("""
UPDATE files SET deleted_at = coalesce(deleted_at, clock_timestamp()), filename = '', sha256 = ''
 WHERE tenant_id = :tenant AND id = ANY(:files)
""")

_UNUSED = """
       NOT EXISTS (SELECT 1 FROM jobs j WHERE j.input_file_id = f.id)
   AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.validation_file_id = f.id)
   AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.output_file_id = f.id)
   AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.error_file_id = f.id)
   AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.file_id = f.id)
"""
_FILES = text(f"""
DELETE FROM files f WHERE f.tenant_id = :tenant AND f.id = ANY(:files) AND {_UNUSED}
""")
_OLD_FILES = text(f"""
DELETE FROM files WHERE id = ANY(ARRAY(
    SELECT f.id FROM files f
     WHERE f.deleted_at < (SELECT clock_timestamp()) - make_interval(secs => :grace) AND {_UNUSED}
     ORDER BY f.deleted_at LIMIT {AT_ONCE}))
""")


def purge_jobs(
    connection: Connection, jobs: Sequence[str], *, told: bool = False
) -> tuple[Removed, bool]:
    """Removes a portion of what belongs to these jobs, and the jobs once that was all. With
    ``told``, also what of them was told to others: streams and webhooks. True: it was all."""
    removed: Removed = {}
    done = True
    for reference, statement in ((_TOLD if told else {}) | _BY_JOB).items():
        gone = connection.execute(statement, {"jobs": list(jobs), "limit": AT_ONCE}).rowcount
        done = done and gone < AT_ONCE
        if gone:
            removed[reference.table] = removed.get(reference.table, 0) + gone
    if done:
        removed["jobs"] = connection.execute(_JOBS, {"jobs": list(jobs)}).rowcount
    return removed, done


def jobs_of_tenant(connection: Connection, tenant_id: str) -> list[str]:
    """Some of them, the oldest."""
    values = {"tenant": tenant_id, "limit": JOBS_AT_ONCE}
    return list(connection.execute(_JOBS_OF_TENANT, values).scalars())


def purge_tenant_table(connection: Connection, table: str, tenant_id: str) -> int:
    """Removes a portion of the tenant's rows of one of ``OF_TENANTS``; returns how many."""
    values = {"tenant": tenant_id, "limit": AT_ONCE}
    return connection.execute(_BY_TENANT[table], values).rowcount


def purge_circuits(connection: Connection, tenant_id: str) -> int:
    """What is remembered of receivers that the tenant alone named."""
    return connection.execute(_CIRCUITS, {"tenant": tenant_id}).rowcount


def purge_files(connection: Connection, tenant_id: str, files: Sequence[str]) -> Removed:
    """Removes rows of files whose objects are gone; of those that jobs point to, their names and
    hashes (counted as ``files_emptied``)."""
    values = {"tenant": tenant_id, "files": list(files)}
    emptied = connection.execute(_EMPTY_FILES, values).rowcount
    gone = connection.execute(_FILES, values).rowcount
    found = {"files": gone, "files_emptied": emptied - gone}
    return {table: rows for table, rows in found.items() if rows}


def purge_old_files(connection: Connection, *, grace_seconds: float) -> int:
    """Removes rows of files that were deleted so long ago and that nothing points to any more;
    a thousand at most, returns how many."""
    return connection.execute(_OLD_FILES, {"grace": grace_seconds}).rowcount
