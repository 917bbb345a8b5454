"""Queries on imports: what is shown of one beside its job."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class Import(NamedTuple):
    """What an import has besides what every job has."""

    spec: dict[str, Any]
    detail: dict[str, Any]
    """``imported``: what was found in the package, and what was left out."""
    result: dict[str, Any] | None
    """``model``: the name that it is served by."""


_IMPORTS = text("""
SELECT id, spec, detail, result FROM jobs
 WHERE tenant_id = :tenant AND id = ANY(:ids) AND kind = 'import' AND deleted_at IS NULL
""")


def imports_of(
    connection: Connection, tenant_id: str, job_ids: Collection[str]
) -> dict[str, Import]:
    """By job id, for those that are the tenant's and imports."""
    rows = connection.execute(_IMPORTS, {"tenant": tenant_id, "ids": list(job_ids)})
    return {row.id: Import(row.spec, row.detail, row.result) for row in rows}
