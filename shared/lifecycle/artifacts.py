"""Artifacts become visible with the commit of the shard that made them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import FENCE, Held
from shared.storage.base import StoredObject


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A stored file that a row made."""

    id: str
    name: str
    role: str
    media_type: str
    stored: StoredObject
    line: int = 0
    """Of the batch's input file; 0 for a job that is no batch."""
    step: str | None = None
    parent_id: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


LISTED = """unnest(
        CAST(:a_shards AS bigint[]), CAST(:a_ids AS text[]), CAST(:a_lines AS int[]),
        CAST(:a_steps AS text[]), CAST(:a_roles AS text[]), CAST(:a_parents AS text[]),
        CAST(:a_names AS text[]), CAST(:a_widths AS int[]), CAST(:a_heights AS int[]),
        CAST(:a_seconds AS double precision[]), CAST(:a_keys AS text[]),
        CAST(:a_media_types AS text[]), CAST(:a_bytes AS bigint[]), CAST(:a_hashes AS text[]),
        CAST(:a_provenances AS text[]))
      AS a (shard_id, id, line, step, role, parent_id, name, width, height, seconds, storage_key,
            media_type, bytes, sha256, provenance)"""
"""Artifacts as a table ``a``; its parameters are made by ``listed``."""


def insert_from(shard: str) -> str:
    """Inserts the artifacts of ``LISTED`` that belong to rows of ``shard``, a table with ``id``,
    ``job_id`` and ``tenant_id``.

    A repeated attempt makes the same ids, and its files take the place of the earlier ones (of
    previews, as nothing else is visible before its shard ended). An id of another job is left as
    it is.
    """
    return f"""
INSERT INTO artifacts (id, tenant_id, job_id, shard_id, line, step, role, parent_id, name, width,
                       height, seconds, storage_key, media_type, bytes, sha256, provenance)
SELECT a.id, {shard}.tenant_id, {shard}.job_id, {shard}.id, a.line, a.step, a.role, a.parent_id,
       a.name, a.width, a.height, a.seconds, a.storage_key, a.media_type, a.bytes, a.sha256,
       CAST(a.provenance AS json)
  FROM {LISTED} JOIN {shard} ON {shard}.id = a.shard_id
    ON CONFLICT (id) DO UPDATE
   SET shard_id = excluded.shard_id, role = excluded.role, parent_id = excluded.parent_id,
       width = excluded.width, height = excluded.height, seconds = excluded.seconds,
       storage_key = excluded.storage_key, media_type = excluded.media_type,
       bytes = excluded.bytes, sha256 = excluded.sha256, provenance = excluded.provenance
 WHERE artifacts.job_id = excluded.job_id
"""


_ADD = text(insert_from("shards"))

_PREVIEW = text(f"""
WITH shard AS (
    SELECT s.id, s.job_id, s.tenant_id FROM shards s WHERE s.id = :id AND {FENCE} FOR UPDATE
), added AS ({insert_from("shard")})
INSERT INTO events (tenant_id, job_id, type, data)
SELECT tenant_id, job_id, 'job.preview', CAST(:data AS json) FROM shard RETURNING 1
""")


def listed(artifacts: Iterable[tuple[Held, NewArtifact]]) -> dict[str, Any]:
    """The parameters of ``LISTED``."""
    pairs = list(artifacts)
    made = [artifact for _, artifact in pairs]
    return {
        "a_shards": [held.shard_id for held, _ in pairs],
        "a_ids": [item.id for item in made],
        "a_lines": [item.line for item in made],
        "a_steps": [item.step for item in made],
        "a_roles": [item.role for item in made],
        "a_parents": [item.parent_id for item in made],
        "a_names": [item.name for item in made],
        "a_widths": [item.width for item in made],
        "a_heights": [item.height for item in made],
        "a_seconds": [item.seconds for item in made],
        "a_keys": [item.stored.key for item in made],
        "a_media_types": [item.media_type for item in made],
        "a_bytes": [item.stored.bytes for item in made],
        "a_hashes": [item.stored.sha256 for item in made],
        "a_provenances": [json.dumps(item.provenance) for item in made],
    }


def add_artifacts(connection: Connection, held: Held, artifacts: Sequence[NewArtifact]) -> None:
    """Makes the files of a shard visible; for the transaction that has just passed its fence."""
    if artifacts:
        connection.execute(_ADD, listed((held, artifact) for artifact in artifacts))


def add_preview(
    connection: Connection, session_id: str, held: Held, preview: NewArtifact, *, step: int
) -> bool:
    """Shows a picture that is not finished, and announces it; False when the shard is not held,
    which is nobody's fault: it may have ended meanwhile."""
    values = listed([(held, preview)]) | {
        "me": session_id,
        "id": held.shard_id,
        "epoch": held.epoch,
        "data": json.dumps({"artifact_id": preview.id, "step": step}),
    }
    return connection.execute(_PREVIEW, values).scalar() is not None
