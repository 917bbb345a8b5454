"""Uploads: a file in parts, and the job whose one shard joins them into it."""

from __future__ import annotations

import json
from dataclasses import asdict

from sqlalchemy import Connection, text

from shared.db.files import insert_file
from shared.errors import ChecksumMismatch
from shared.lifecycle.fence import Held
from shared.lifecycle.stages import NewFile
from shared.lifecycle.submit import SHARD
from shared.lifecycle.tuning_close import already, close, digest
from shared.pools import UPKEEP
from shared.specs.uploads import ENDPOINT, KIND, LIFE_SECONDS, JoinSpec
from shared.states import JobState, ShardState, Stage, guard

_CREATE = text("""
INSERT INTO uploads (id, tenant_id, filename, purpose, bytes, file_seconds, expires_at)
VALUES (:id, :tenant, :filename, :purpose, :bytes, :file_seconds,
        clock_timestamp() + make_interval(secs => :life))
""")

_ADD_PART = text("""
INSERT INTO upload_parts (id, upload_id, bytes, sha256, storage_key)
VALUES (:id, :upload, :bytes, :sha256, :key)
RETURNING CAST(extract(epoch FROM created_at) AS double precision)
""")

_SUBMIT = text(f"""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec, priority, shards_open,
                      rows_total)
    VALUES (:id, :tenant, :kind, 'queued', :stage, :endpoint, CAST(:spec AS json), :priority, 1, 1))
{SHARD}
""")

_JOIN = text("""
UPDATE uploads SET join_id = :job, join_sha256 = :sha256
 WHERE id = :upload AND tenant_id = :tenant
""")

_CANCEL = text("""
UPDATE uploads SET cancelled_at = clock_timestamp(), ended_at = clock_timestamp()
 WHERE id = :id AND tenant_id = :tenant AND ended_at IS NULL
""")

_TERMS = text("""
SELECT u.id, u.tenant_id, u.filename, u.purpose, u.file_seconds, j.id AS job_id
  FROM jobs j JOIN uploads u ON u.join_id = j.id
 WHERE j.id = :job FOR UPDATE OF u
""")

_COMPLETE = text("""
UPDATE uploads SET file_id = :file, ended_at = clock_timestamp() WHERE id = :id
""")

# Without an event: the upload's own answer tells of its end.
_SUCCEED = text(f"""
UPDATE jobs j
   SET state = 'succeeded', rows_completed = 1, shards_open = 0, version = j.version + 1,
       ended_at = clock_timestamp()
 WHERE j.id = :job AND {guard("j.state", JobState.SUCCEEDED)}
""")

_FAIL = text(f"""
UPDATE jobs j
   SET state = 'failed', error_code = :code, error_message = :message, error_param = :param,
       rows_failed = 1, shards_open = 0, version = j.version + 1, ended_at = clock_timestamp()
 WHERE j.id = :job AND {guard("j.state", JobState.FAILED)}
""")


def create_upload(
    connection: Connection,
    *,
    upload_id: str,
    tenant_id: str,
    filename: str,
    purpose: str,
    bytes: int,
    file_seconds: int | None,
) -> None:
    """Opens an upload of ``bytes`` in all, for an hour; its file lives ``file_seconds``, None for
    ever."""
    connection.execute(
        _CREATE,
        {
            "id": upload_id,
            "tenant": tenant_id,
            "filename": filename,
            "purpose": purpose,
            "bytes": bytes,
            "file_seconds": file_seconds,
            "life": LIFE_SECONDS,
        },
    )


def add_part(
    connection: Connection, *, part_id: str, upload_id: str, bytes: int, sha256: str, key: str
) -> float:
    """Adds a stored part to an upload that the caller holds and found open; returns when that was,
    in Unix seconds."""
    values = {
        "id": part_id,
        "upload": upload_id,
        "bytes": bytes,
        "sha256": sha256,
        "key": key,
    }
    return float(connection.execute(_ADD_PART, values).scalar_one())


def submit_join(
    connection: Connection,
    *,
    job_id: str,
    tenant_id: str,
    spec: JoinSpec,
    sha256: str,
    window: int,
) -> None:
    """Queues the joining of the parts of an upload that the caller holds and found open;
    ``sha256`` is that of what was asked."""
    connection.execute(
        _SUBMIT,
        {
            "id": job_id,
            "tenant": tenant_id,
            "kind": KIND,
            "pool": UPKEEP,
            "stage": Stage.VALIDATE,
            "endpoint": ENDPOINT,
            "spec": json.dumps(asdict(spec)),
            "priority": 0,
            "window": window,
        },
    )
    connection.execute(
        _JOIN,
        {
            "job": job_id,
            "upload": spec.upload_id,
            "tenant": tenant_id,
            "sha256": sha256,
        },
    )


def cancel_upload(connection: Connection, *, tenant_id: str, upload_id: str) -> None:
    """Ends an upload that the caller holds and found open. Its parts go."""
    connection.execute(_CANCEL, {"id": upload_id, "tenant": tenant_id})


def finish_join(connection: Connection, session_id: str, held: Held, file: NewFile) -> bool:
    """Makes the joined file visible and completes the upload, in one breath. Idempotent for the
    same bytes; False means that this worker is a zombie and must drop it."""
    sha256 = digest(KIND, file.stored.sha256)
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    terms = connection.execute(_TERMS, {"job": shard.job_id}).one()
    insert_file(
        connection,
        file_id=file.file_id,
        tenant_id=terms.tenant_id,
        filename=terms.filename,
        purpose=terms.purpose,
        bytes=file.stored.bytes,
        sha256=file.stored.sha256,
        storage_key=file.stored.key,
        expires_in_seconds=terms.file_seconds,
    )
    connection.execute(_COMPLETE, {"file": file.file_id, "id": terms.id})
    connection.execute(_SUCCEED, {"job": shard.job_id})
    return True


def refuse_join(
    connection: Connection, session_id: str, held: Held, error: ChecksumMismatch
) -> bool:
    """Ends the job because the whole is not what the caller said; the upload stays open. False
    means that this worker is a zombie."""
    sha256 = digest(KIND, error.code)
    why = {"code": error.code, "message": error.message}
    shard = close(connection, session_id, held, ShardState.FAILED, sha256, **why)
    if shard is None:
        return already(connection, session_id, held, ShardState.FAILED, sha256)
    connection.execute(_FAIL, {"job": shard.job_id, "param": error.param, **why})
    return True
