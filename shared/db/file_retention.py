"""Queries about files whose time is up, and about who reads them still."""

from __future__ import annotations

from sqlalchemy import Connection, text

from shared.db.retention import TEXT_ENDPOINTS
from shared.db.schedules import NAMED_FILES
from shared.states import OPEN_JOB

LIMIT = 100
MOST_HELD = 5_000
"""Files past their expiry that are looked at in one go; open jobs may hold many."""

# Bodies of calls name files and artifacts by their ids, which nothing else of the same look can be.
NAMED = r"""
SELECT found[1] AS id FROM jobs j,
       regexp_matches(CAST(j.spec AS text), '"((file-|art_)[0-9a-z]{{26}})"', 'g') AS found
 WHERE j.state IN ({open}) AND j.endpoint NOT IN ({text_endpoints}) AND {of_tenant}
"""
_EXPIRED = f"""
WITH over AS MATERIALIZED (
    SELECT f.id, f.storage_key, f.tenant_id, f.expires_at FROM files f
     WHERE f.deleted_at IS NULL AND f.expires_at IS NOT NULL
       AND f.expires_at <= (SELECT clock_timestamp())  -- asked once, it bounds the scan
     ORDER BY f.expires_at LIMIT {MOST_HELD}
), named AS MATERIALIZED (
    {
    NAMED.format(
        open=OPEN_JOB,
        text_endpoints=TEXT_ENDPOINTS,
        of_tenant="j.tenant_id IN (SELECT tenant_id FROM over)",
    )
}), scheduled AS MATERIALIZED (
    {NAMED_FILES.format(of_tenant="s.tenant_id IN (SELECT tenant_id FROM over)")}
)
SELECT f.id, f.storage_key FROM over f
 WHERE NOT EXISTS (SELECT 1 FROM jobs j
                    WHERE (j.input_file_id = f.id OR j.validation_file_id = f.id)
                      AND j.state IN ({OPEN_JOB}))
   AND NOT EXISTS (SELECT 1 FROM named n WHERE n.id = f.id)
   AND NOT EXISTS (SELECT 1 FROM scheduled n WHERE n.id = f.id)
 ORDER BY f.expires_at LIMIT {LIMIT}
"""
_NAMED_OF_TENANT = NAMED.format(
    open=OPEN_JOB, text_endpoints=TEXT_ENDPOINTS, of_tenant="j.tenant_id = :tenant"
)


def expired_files(connection: Connection) -> list[tuple[str, str]]:
    """(file id, storage key) of files past their expiry that no open job reads, and no live
    schedule names."""
    return [(file_id, key) for file_id, key in connection.execute(text(_EXPIRED))]


def named_inputs(connection: Connection, tenant_id: str) -> set[str]:
    """Ids of files and artifacts that bodies of the tenant's open calls name."""
    rows = connection.execute(text(_NAMED_OF_TENANT), {"tenant": tenant_id})
    return set(rows.scalars())


def files_below(connection: Connection, tenant_id: str, prefix: str) -> list[str]:
    """Ids of the tenant's files whose time is up and whose objects were kept below ``prefix``."""
    rows = connection.execute(
        text("""
        SELECT id FROM files
         WHERE tenant_id = :tenant AND starts_with(storage_key, :prefix)
           AND (deleted_at IS NOT NULL OR expires_at <= clock_timestamp())
        """),
        {"tenant": tenant_id, "prefix": prefix},
    )
    return list(rows.scalars())


def mark_deleted(connection: Connection, file_id: str) -> None:
    connection.execute(
        text(
            "UPDATE files SET deleted_at = clock_timestamp() WHERE id = :id AND deleted_at IS NULL"
        ),
        {"id": file_id},
    )
