"""What only some batches do: take over an input made of another's rows, end as an estimate, and
remember where each slice's lines lie in the final files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import FENCE, Held, count_zombies
from shared.lifecycle.stages import NewFile
from shared.lifecycle.tuning_close import already, close, digest
from shared.states import JobState, ShardState, guard

INPUT_SECONDS = 30 * 86_400
"""Life of an input that was made of another batch's rows."""

_HELD_JOB = text(f"""
SELECT j.id, j.detail FROM shards s JOIN jobs j ON j.id = s.job_id
 WHERE s.id = :id AND {FENCE} FOR UPDATE OF j
""")

_ADD_INPUT = text("""
INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key, expires_at)
SELECT :file, j.tenant_id, :filename, 'batch', :bytes, :sha256, :key,
       clock_timestamp() + make_interval(secs => :seconds)
  FROM jobs j WHERE j.id = :job
""")

_TAKE_INPUT = text("""
UPDATE jobs SET input_file_id = :file, detail = CAST(:detail AS json), version = version + 1
 WHERE id = :job
""")

_END_ESTIMATE = text(f"""
WITH job AS (
    UPDATE jobs j
       SET state = 'succeeded', rows_total = :rows, shards_open = 0, model = :model,
           detail = CAST(:detail AS json), version = j.version + 1, ended_at = clock_timestamp()
     WHERE j.id = :job AND {guard("j.state", JobState.SUCCEEDED)}
    RETURNING j.id, j.tenant_id)
INSERT INTO events (tenant_id, job_id, type) SELECT tenant_id, id, 'batch.completed' FROM job
""")

_READ_DETAIL = text("SELECT detail FROM jobs WHERE id = :job FOR UPDATE")

_KEEP_SIZES = text("""
UPDATE shards s SET errors_bytes = d.bytes
  FROM unnest(CAST(:ordinals AS int[]), CAST(:sizes AS bigint[])) AS d (ordinal, bytes)
 WHERE s.job_id = :job AND s.stage = 'generate' AND s.ordinal = d.ordinal
   AND s.output_key IS NULL AND s.errors_key IS NULL
""")


def take_input(connection: Connection, session_id: str, held: Held, file: NewFile) -> bool:
    """Gives the batch an input of its own, which stays whatever becomes of this attempt; a second
    call changes nothing. False means that this worker is a zombie."""
    values = {"me": session_id, "id": held.shard_id, "epoch": held.epoch}
    job = connection.execute(_HELD_JOB, values).one_or_none()
    if job is None:
        count_zombies(connection, [held])
        return False
    if job.detail.get("own_input"):
        return True
    connection.execute(
        _ADD_INPUT,
        {
            "job": job.id,
            "file": file.file_id,
            "filename": file.filename,
            "bytes": file.stored.bytes,
            "sha256": file.stored.sha256,
            "key": file.stored.key,
            "seconds": INPUT_SECONDS,
        },
    )
    detail = json.dumps(job.detail | {"own_input": True})
    connection.execute(_TAKE_INPUT, {"job": job.id, "file": file.file_id, "detail": detail})
    return True


def finish_estimate(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    rows: int,
    model: str | None,
    estimate: dict[str, Any],
) -> bool:
    """Ends a batch that only wanted to know what it would take. Idempotent for the same estimate;
    False means that this worker is a zombie."""
    sha256 = digest("estimate", estimate)
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    detail = connection.execute(_READ_DETAIL, {"job": shard.job_id}).scalar_one()
    connection.execute(
        _END_ESTIMATE,
        {
            "job": shard.job_id,
            "rows": rows,
            "model": model,
            "detail": json.dumps(detail | {"estimate": estimate}),
        },
    )
    return True


def keep_sizes(connection: Connection, job_id: str, explained: Mapping[int, int]) -> bool:
    """How many bytes of the error file explain each slice that never ran, by ordinal: with them,
    every slice's lines can be found in the final files. For the transaction that ends the batch;
    always True."""
    if explained:
        values = {"job": job_id, "ordinals": [*explained], "sizes": [*explained.values()]}
        connection.execute(_KEEP_SIZES, values)
    return True
