"""Asking for something to be deleted: gone for its tenant in this transaction, and a record that
upkeep completes once nothing is left (``deletion_work``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType

from sqlalchemy import Connection, text

from shared.db import files, models
from shared.db.briefs import delete_job
from shared.db.file_retention import named_inputs
from shared.db.schedules import is_named_by_schedule
from shared.errors import Conflict, Forbidden, ModelNotFound, NotFound
from shared.ids import new_deletion_id
from shared.states import OPEN_JOB

GRACE_SECONDS = 3_600.0
"""So long after the end of a job a worker that was given up may still write objects of it."""
AT_ONCE = 1_000

_BEGIN = text("""
INSERT INTO deletions (id, tenant_id, kind, target, jobs, keys, rows, settles_at)
VALUES (:id, :tenant, :kind, :target, :jobs, :keys, CAST(:rows AS jsonb),
        greatest(clock_timestamp(), CAST(:since AS timestamptz) + make_interval(secs => :grace)))
    ON CONFLICT (target, kind) WHERE completed_at IS NULL DO NOTHING
RETURNING id
""")

_PENDING = text("""
SELECT id FROM deletions
 WHERE tenant_id = :tenant AND kind = :kind AND target = :target AND completed_at IS NULL
""")

_RECORD = text("""
INSERT INTO deletion_objects (deletion_id, tenant_id, key_sha256)
SELECT :id, :tenant, hash FROM unnest(CAST(:hashes AS bytea[])) AS n (hash)
    ON CONFLICT DO NOTHING
""")

_JOB = text(f"""
SELECT j.state IN ({OPEN_JOB}) AS open, CAST(j.ended_at AS text) AS ended_at,
       (SELECT t.parent_id FROM trials t WHERE t.job_id = j.id UNION ALL
        SELECT b.parent_id FROM production_batches b WHERE b.job_id = j.id) AS whole,
       ARRAY(SELECT t.job_id FROM trials t WHERE t.parent_id = j.id UNION ALL
             SELECT b.job_id FROM production_batches b WHERE b.parent_id = j.id
              ORDER BY job_id) AS parts
  FROM jobs j WHERE j.id = :job AND j.tenant_id = :tenant AND j.deleted_at IS NULL
""")

_MODEL_OF = text("""
SELECT id FROM models WHERE job_id = ANY(:jobs) AND deleted_at IS NULL ORDER BY id LIMIT 1
""")

# Files of the jobs' own: what they made, and the input that a retry made of another's rows.
_OWN_FILES = text("""
SELECT f.id FROM files f
 WHERE f.tenant_id = :tenant AND f.deleted_at IS NULL
   AND f.storage_key ^@ ANY(CAST(:prefixes AS text[]))
   FOR UPDATE
""")

_ARTIFACTS = text("""
DELETE FROM artifacts WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM artifacts WHERE tenant_id = :tenant AND job_id = ANY(:jobs) LIMIT :limit))
RETURNING storage_key
""")

_NAMED_OF = text("""
SELECT id FROM artifacts WHERE job_id = ANY(:jobs) AND id = ANY(:named) LIMIT 1
""")

_ARCHIVED = text("DELETE FROM archived_jobs WHERE tenant_id = :tenant AND id = :job")

_ARTIFACT = text(f"""
SELECT a.id, a.job_id, j.state IN ({OPEN_JOB}) AS open, CAST(j.ended_at AS text) AS ended_at
  FROM artifacts a JOIN jobs j ON j.id = a.job_id
 WHERE a.id = :id AND a.tenant_id = :tenant FOR UPDATE OF a
""")

_WITH_ITS_OWN = text("""
DELETE FROM artifacts
 WHERE tenant_id = :tenant AND job_id = :job AND (id = :id OR parent_id = :id)
RETURNING storage_key
""")

_DISABLE = text("""
UPDATE tenants SET disabled_at = coalesce(disabled_at, clock_timestamp()) WHERE id = :tenant
""")
_REVOKE = text("""
UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE tenant_id = :tenant
""")


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was begun: the record's id, and keys that whoever asked may remove at once."""

    id: str
    keys: tuple[str, ...] = ()


def request_job_deletion(
    connection: Connection, *, tenant_id: str, job_id: str, grace_seconds: float = GRACE_SECONDS
) -> Deleted:
    """Deletes a job that has ended, all that it made and said, and a sweep's trials or a
    production's batches; or what the archive has of it.

    Raises NotFound; Conflict while it is open, is a part of one of those, has models, or an open
    job reads what it made.
    """
    again = _pending(connection, tenant_id, "job", job_id)
    if again is not None:
        return Deleted(again)
    found = connection.execute(_JOB, {"job": job_id, "tenant": tenant_id}).one_or_none()
    if found is None:
        return _delete_archived(connection, tenant_id, job_id)
    if found.open:
        raise Conflict("this job has not ended: cancel it first")
    if found.whole is not None:
        raise Conflict(f"this job is a part of {found.whole}: delete that")
    jobs = [job_id, *found.parts]
    _check_unused(connection, tenant_id, jobs)
    for one in jobs:
        if not delete_job(connection, tenant_id, one):
            raise Conflict(f"{one} has not ended: cancel it first")
    values = {"tenant": tenant_id, "jobs": jobs, "limit": AT_ONCE}
    keys = list(connection.execute(_ARTIFACTS, values).scalars())
    begun = _begin(
        connection, tenant_id, "job", job_id, jobs=jobs, rows={"artifacts": len(keys)},
        since=found.ended_at, grace_seconds=grace_seconds,
    )  # fmt: skip
    record_keys(connection, begun, tenant_id, keys)
    return Deleted(begun, tuple(keys))


def request_file_deletion(connection: Connection, *, tenant_id: str, file_id: str) -> Deleted:
    """Deletes a file. Raises NotFound; Conflict while an open job reads it or names it, or a live
    schedule does."""
    row = files.lock_file(connection, tenant_id, file_id)
    if row is None:
        raise NotFound("there is no such file")
    if files.count_open_readers(connection, tenant_id, file_id):
        raise Conflict("a batch that has not ended reads this file")
    if files.is_named_by_open(connection, tenant_id, file_id):
        raise Conflict("a job that has not ended names this file")
    if is_named_by_schedule(connection, tenant_id, file_id):
        raise Conflict("a schedule names this file: pause or delete that first")
    files.end_life(connection, tenant_id, file_id)
    begun = _begin(connection, tenant_id, "file", file_id, keys=[row.storage_key])
    record_keys(connection, begun, tenant_id, [row.storage_key])
    return Deleted(begun, (row.storage_key,))


def request_artifact_deletion(
    connection: Connection,
    *,
    tenant_id: str,
    artifact_id: str,
    grace_seconds: float = GRACE_SECONDS,
) -> Deleted:
    """Deletes an artifact and what illustrates it. Raises NotFound; Conflict while its job is open,
    or another open one names it."""
    values = {"id": artifact_id, "tenant": tenant_id}
    found = connection.execute(_ARTIFACT, values).one_or_none()
    if found is None:
        raise NotFound("there is no such artifact")
    if found.open:
        raise Conflict("the job that made this artifact has not ended")
    if files.is_named_by_open(connection, tenant_id, artifact_id):
        raise Conflict("a job that has not ended names this artifact")
    gone = connection.execute(_WITH_ITS_OWN, values | {"job": found.job_id})
    keys = list(gone.scalars())
    begun = _begin(
        connection, tenant_id, "artifact", artifact_id, keys=keys, rows={"artifacts": len(keys)},
        since=found.ended_at, grace_seconds=grace_seconds,
    )  # fmt: skip
    record_keys(connection, begun, tenant_id, keys)
    return Deleted(begun, tuple(keys))


def request_model_deletion(
    connection: Connection, *, tenant_id: str, model_id: str, grace_seconds: float = GRACE_SECONDS
) -> Deleted:
    """Deletes a model of the tenant's own; its files go once nobody can be loading them.

    Raises ModelNotFound, Forbidden for everybody's models, Conflict while something needs it.
    """
    if models.get_model(connection, tenant_id, model_id) is None:
        raise ModelNotFound("there is no such model", param="model")
    if not models.lock_own_model(connection, tenant_id, model_id):
        raise Forbidden("only models of your own can be deleted", param="model")
    needed_by = models.needed_by(connection, tenant_id, model_id)
    if needed_by is not None:
        raise Conflict(f"{needed_by} needs this model", param="model")
    models.delete_model(connection, tenant_id, model_id)
    begun = _begin(
        connection, tenant_id, "model", model_id, since="now", grace_seconds=grace_seconds
    )
    return Deleted(begun)


def request_tenant_deletion(connection: Connection, *, tenant_id: str) -> Deleted | None:
    """Begins to erase a tenant: its keys are good for nothing from here on, its jobs are stopped
    and all that it has is removed. None when there is no such tenant."""
    if not connection.execute(_DISABLE, {"tenant": tenant_id}).rowcount:
        return None
    connection.execute(_REVOKE, {"tenant": tenant_id})
    return Deleted(_begin(connection, tenant_id, "tenant", tenant_id))


def record_keys(
    connection: Connection, deletion_id: str, tenant_id: str, keys: Sequence[str]
) -> None:
    """Notes the hashes of keys whose objects are about to go; again changes nothing."""
    if keys:
        hashes = [sha256(key.encode()).digest() for key in keys]
        values = {"id": deletion_id, "tenant": tenant_id, "hashes": hashes}
        connection.execute(_RECORD, values)


def _delete_archived(connection: Connection, tenant_id: str, job_id: str) -> Deleted:
    gone = connection.execute(_ARCHIVED, {"tenant": tenant_id, "job": job_id}).rowcount
    if not gone:
        raise NotFound("there is no such job")
    # Results may be kept for longer than their job. Other files and its rows are gone but for what
    # the cleaner has not come to yet.
    _check_unused(connection, tenant_id, [job_id])
    rows = {"archived_jobs": gone}
    return Deleted(_begin(connection, tenant_id, "job", job_id, jobs=[job_id], rows=rows))


def _check_unused(connection: Connection, tenant_id: str, jobs: Sequence[str]) -> None:
    model = connection.execute(_MODEL_OF, {"jobs": list(jobs)}).scalar()
    if model is not None:
        raise Conflict(f"the model {model} came of this job: delete that first")
    named = {"jobs": list(jobs), "named": sorted(named_inputs(connection, tenant_id))}
    artifact = connection.execute(_NAMED_OF, named).scalar()
    if artifact is not None:
        raise Conflict(f"a job that has not ended names {artifact}, which this one made")
    prefixes = [f"t/{tenant_id}/j/{job_id}/" for job_id in jobs]
    own = connection.execute(_OWN_FILES, {"tenant": tenant_id, "prefixes": prefixes})
    for file_id in own.scalars().all():
        if files.count_open_readers(connection, tenant_id, file_id):
            raise Conflict(f"a job that has not ended reads {file_id}, which this one made")
        if files.is_named_by_open(connection, tenant_id, file_id):
            raise Conflict(f"a job that has not ended names {file_id}, which this one made")
        if is_named_by_schedule(connection, tenant_id, file_id):
            raise Conflict(f"a schedule names {file_id}, which this job made")
        files.end_life(connection, tenant_id, file_id)


def _begin(
    connection: Connection,
    tenant_id: str,
    kind: str,
    target: str,
    *,
    jobs: Sequence[str] = (),
    keys: Sequence[str] = (),
    rows: Mapping[str, int] = MappingProxyType({}),
    since: str | None = None,
    grace_seconds: float = 0.0,
) -> str:
    values = {
        "id": new_deletion_id(),
        "tenant": tenant_id,
        "kind": kind,
        "target": target,
        "jobs": list(jobs),
        "keys": list(keys),
        "rows": json.dumps({table: number for table, number in rows.items() if number}),
        "since": since,
        "grace": grace_seconds,
    }
    begun = connection.execute(_BEGIN, values).scalar()
    if begun is None:
        begun = _pending(connection, tenant_id, kind, target)
    if begun is None:
        raise Conflict(f"this {kind} is being deleted already")
    return str(begun)


def _pending(connection: Connection, tenant_id: str, kind: str, target: str) -> str | None:
    values = {"tenant": tenant_id, "kind": kind, "target": target}
    found: str | None = connection.execute(_PENDING, values).scalar()
    return found
