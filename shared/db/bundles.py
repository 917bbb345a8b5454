"""Queries for a campaign's bundle: all that the steps of one graph have made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

_STEPS = text("""
SELECT t.name, t.endpoint, t.model, t.needs, CAST(t.spec AS text) AS spec,
       CAST(t.result AS text) AS result, s.epoch AS attempts,
       CAST(extract(epoch FROM s.started_at) AS double precision) AS started_at,
       CAST(extract(epoch FROM s.ended_at) AS double precision) AS ended_at
  FROM steps t JOIN shards s ON s.id = t.shard_id
 WHERE t.job_id = :job AND t.line = :line AND NOT t.last
 ORDER BY t.shard_id
""")

# Previews show what was not finished yet.
_ARTIFACTS = text("""
SELECT id, name, role, parent_id, step, media_type, bytes, sha256, width, height, seconds,
       storage_key, CAST(provenance AS text) AS provenance,
       CAST(extract(epoch FROM created_at) AS double precision) AS created_at
  FROM artifacts
 WHERE job_id = :job AND line = :line AND tenant_id = :tenant AND role <> 'preview'
   AND (step IS NULL OR step <> :last)
 ORDER BY id
""")

_CREATED = text("""
SELECT CAST(extract(epoch FROM created_at) AS double precision) FROM jobs WHERE id = :job
""")


@dataclass(frozen=True, slots=True)
class MadeStep:
    """A finished step; times in Unix seconds."""

    name: str
    endpoint: str
    model: str | None
    needs: list[str]
    body: dict[str, Any]
    """With references to other steps (``shared.plans.complete``)."""
    result: Any
    attempts: int
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class MadeArtifact:
    """A stored file; pixels, seconds, Unix seconds."""

    id: str
    name: str
    role: str
    parent_id: str | None
    step: str | None
    media_type: str
    bytes: int
    sha256: str
    width: int | None
    height: int | None
    seconds: float | None
    storage_key: str
    provenance: dict[str, Any]
    created_at: float


def made_steps(connection: Connection, job_id: str, line: int) -> list[MadeStep]:
    """Every step of the graph but its last, in the order of the plan."""
    return [
        MadeStep(
            name=row.name,
            endpoint=row.endpoint,
            model=row.model,
            needs=row.needs,
            body=json.loads(row.spec),
            result=None if row.result is None else json.loads(row.result),
            attempts=row.attempts,
            started_at=row.started_at,
            ended_at=row.ended_at,
        )
        for row in connection.execute(_STEPS, {"job": job_id, "line": line})
    ]


def made_artifacts(
    connection: Connection, tenant_id: str, job_id: str, line: int, *, last: str
) -> list[MadeArtifact]:
    """What the steps of the graph have stored, but not its step ``last``; by id."""
    values = {"tenant": tenant_id, "job": job_id, "line": line, "last": last}
    rows = connection.execute(_ARTIFACTS, values)
    return [
        MadeArtifact(**{**row._mapping, "provenance": json.loads(row.provenance)}) for row in rows
    ]


def created_at(connection: Connection, job_id: str) -> float:
    """When the job was accepted, in Unix seconds."""
    return float(connection.execute(_CREATED, {"job": job_id}).scalar_one())
