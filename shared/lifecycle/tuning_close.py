"""How stages of a fine-tuning job end: behind the fence, the same end said twice being one."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.lifecycle.fence import FENCE, Held, count_zombies
from shared.lifecycle.stages import NewFile
from shared.states import JobState, ShardState, guard

RESULTS = "fine-tune-results"
"""The purpose of the files that a fine-tuning job leaves to its tenant."""

_CLOSE = text(f"""
UPDATE shards s
   SET state = :state, output_sha256 = :sha256, error_code = :code, error_message = :message,
       rows_completed = CASE :state WHEN 'succeeded' THEN 1 ELSE 0 END,
       rows_failed = CASE :state WHEN 'failed' THEN 1 ELSE 0 END, ended_at = clock_timestamp()
 WHERE s.id = :id AND {FENCE}
RETURNING s.job_id, s.tenant_id, s.stage
""")

_ALREADY_CLOSED = text("""
SELECT 1 FROM shards WHERE id = :id AND epoch = :epoch AND session_id = :me AND state = :state
   AND output_sha256 = :sha256
""")

_SUCCEED = text(f"""
WITH job AS (
    UPDATE jobs j
       SET state = 'succeeded', result = CAST(:result AS json), detail = CAST(:detail AS json),
           progress = 1, rows_completed = 1, input_tokens = :tokens, shards_open = 0,
           version = j.version + 1, ended_at = clock_timestamp()
     WHERE j.id = :job AND {guard("j.state", JobState.SUCCEEDED)}
    RETURNING j.id, j.tenant_id)
INSERT INTO events (tenant_id, job_id, type, data)
SELECT tenant_id, id, 'fine_tune.succeeded', CAST(:told AS json) FROM job
""")

_ADD_FILE = text("""
INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)
SELECT :file_id, j.tenant_id, :filename, :purpose, :bytes, :sha256, :key
  FROM jobs j WHERE j.id = :job
""")


def close(
    connection: Connection,
    session_id: str,
    held: Held,
    state: ShardState,
    sha256: str,
    *,
    code: str | None = None,
    message: str | None = None,
) -> Row[Any] | None:
    """Ends the shard behind its fence; gives its job, tenant and stage, None when it is not held.
    ``sha256`` tells the same end said twice from another one."""
    values = {
        "me": session_id,
        "id": held.shard_id,
        "epoch": held.epoch,
        "state": str(state),
        "sha256": sha256,
        "code": code,
        "message": message,
    }
    return connection.execute(_CLOSE, values).one_or_none()


def already(
    connection: Connection, session_id: str, held: Held, state: ShardState, sha256: str
) -> bool:
    """Whether this very end was committed before; if not, it is a zombie's, and counted."""
    values = {
        "me": session_id,
        "id": held.shard_id,
        "epoch": held.epoch,
        "state": str(state),
        "sha256": sha256,
    }
    if connection.execute(_ALREADY_CLOSED, values).scalar():
        return True
    count_zombies(connection, [held])
    return False


def digest(*parts: object) -> str:
    """Of what a commit says; parts are JSON."""
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def add_result_file(connection: Connection, job_id: str, file: NewFile) -> None:
    """Makes a file of the tenant's visible, until the tenant deletes it."""
    connection.execute(
        _ADD_FILE,
        {
            "job": job_id,
            "file_id": file.file_id,
            "filename": file.filename,
            "purpose": RESULTS,
            "bytes": file.stored.bytes,
            "sha256": file.stored.sha256,
            "key": file.stored.key,
        },
    )


def succeed(
    connection: Connection,
    job_id: str,
    *,
    result: dict[str, Any],
    detail: dict[str, Any],
    tokens: int = 0,
) -> None:
    """Ends the job with its result; for the transaction that has just closed its shard."""
    told = {"fine_tuned_model": result["fine_tuned_model"]}
    connection.execute(
        _SUCCEED,
        {
            "job": job_id,
            "result": json.dumps(result),
            "detail": json.dumps(detail),
            "tokens": tokens,
            "told": json.dumps(told),
        },
    )
