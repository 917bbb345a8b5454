"""Queries on ``artifacts``. The commit of the shard that made them inserts them
(``shared.lifecycle``), so all that can be read here is complete."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class ArtifactRow(NamedTuple):
    """A stored file that a job made; times in Unix seconds."""

    id: str
    job_id: str
    line: int
    """Of the batch's input file; 0 for a job that is no batch."""
    step: str | None
    role: str
    parent_id: str | None
    name: str
    width: int | None
    height: int | None
    seconds: float | None
    storage_key: str
    media_type: str
    bytes: int
    sha256: str
    provenance: dict[str, Any]
    created_at: float


_SPECIAL = {"created_at": "CAST(extract(epoch FROM a.created_at) AS double precision)"}
_LISTED = ", ".join(_SPECIAL.get(name, f"a.{name}") for name in ArtifactRow._fields)
_SELECT = f"""
SELECT CAST(json_build_array({_LISTED}) AS text) AS facts FROM artifacts a
 WHERE a.tenant_id = :tenant
"""

_FIND = text(f"{_SELECT} AND a.id = ANY(:ids)")

_LIST = text(f"""{_SELECT}
   AND a.job_id = :job AND a.id > :after
   AND (CAST(:role AS text) IS NULL OR a.role = :role)
   AND (CAST(:line AS int) IS NULL OR a.line = :line)
 ORDER BY a.id LIMIT :limit
""")


def get_artifact(connection: Connection, tenant_id: str, artifact_id: str) -> ArtifactRow | None:
    return find_artifacts(connection, tenant_id, [artifact_id]).get(artifact_id)


def find_artifacts(
    connection: Connection, tenant_id: str, artifact_ids: Collection[str]
) -> dict[str, ArtifactRow]:
    """Those of ``artifact_ids`` that are the tenant's, by id."""
    rows = connection.execute(_FIND, {"tenant": tenant_id, "ids": list(artifact_ids)})
    found = (ArtifactRow._make(json.loads(row.facts)) for row in rows)
    return {artifact.id: artifact for artifact in found}


def list_artifacts(
    connection: Connection,
    tenant_id: str,
    *,
    job_id: str,
    after: str | None,
    limit: int,
    role: str | None = None,
    line: int | None = None,
) -> list[ArtifactRow]:
    """A job's artifacts by id, which is an order without meaning that never changes."""
    values = {
        "tenant": tenant_id,
        "job": job_id,
        "after": after or "",
        "limit": limit,
        "role": role,
        "line": line,
    }
    return [ArtifactRow._make(json.loads(row.facts)) for row in connection.execute(_LIST, values)]
