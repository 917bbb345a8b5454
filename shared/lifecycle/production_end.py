"""The end of a production: its output becomes visible, whatever there is of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from shared.lifecycle.fence import Held
from shared.lifecycle.stages import NewFile
from shared.lifecycle.tuning_close import already, close, digest
from shared.lifecycle.tuning_events import announce
from shared.specs.productions import KIND, OUTPUT_PURPOSE
from shared.states import JobState, ShardState, guard

_ADD_FILE = text("""
INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key, expires_at)
SELECT :file_id, j.tenant_id, :filename, :purpose, :bytes, :sha256, :key,
       clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))
  FROM jobs j WHERE j.id = :job
""")

_END = text(f"""
UPDATE jobs j
   SET state = CASE WHEN :complete THEN 'succeeded' ELSE coalesce(j.stop_reason, 'failed') END,
       error_code = CASE WHEN NOT :complete AND j.stop_reason IS NULL THEN :code END,
       error_message = CASE WHEN NOT :complete AND j.stop_reason IS NULL THEN :message END,
       output_file_id = :file, result = CAST(:result AS json), shards_open = 0,
       rows_completed = :completed, rows_failed = :failed, progress = 1,
       version = j.version + 1, ended_at = clock_timestamp()
 WHERE j.id = :job AND {guard("j.state", JobState.SUCCEEDED)}
RETURNING j.state
""")

_WORDS = {str(JobState.SUCCEEDED): "completed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionEnd:
    """What a production has made; its objects are stored."""

    output: NewFile
    summary: Mapping[str, Any]
    """For the tenant: counts that add up."""
    completed: int
    """Lines with a text that is kept …"""
    failed: int
    """… and the others."""
    keep_seconds: float | None
    """How long the output lives; None: for ever."""
    cut_short: tuple[str, str] | None = None
    """The code and the sentence that say why, where not all was done that should have been. Of a
    production that was asked to stop, that is why."""


def finish_production(
    connection: Connection, session_id: str, held: Held, end: ProductionEnd
) -> bool:
    """Makes the output visible and ends the job: succeeded, or for what cut it short. Idempotent
    for the same bytes; False means that this worker is a zombie."""
    sha256 = digest("finished", end.output.stored.sha256, dict(end.summary), end.cut_short)
    shard = close(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    if shard is None:
        return already(connection, session_id, held, ShardState.SUCCEEDED, sha256)
    connection.execute(
        _ADD_FILE,
        {
            "job": shard.job_id,
            "file_id": end.output.file_id,
            "filename": end.output.filename,
            "purpose": OUTPUT_PURPOSE,
            "bytes": end.output.stored.bytes,
            "sha256": end.output.stored.sha256,
            "key": end.output.stored.key,
            "seconds": end.keep_seconds,
        },
    )
    code, message = end.cut_short or (None, None)
    state = connection.execute(
        _END,
        {
            "job": shard.job_id,
            "complete": end.cut_short is None,
            "code": code,
            "message": message,
            "file": end.output.file_id,
            "result": json.dumps(dict(end.summary)),
            "completed": end.completed,
            "failed": end.failed,
        },
    ).scalar_one()
    told = {"output_file_id": end.output.file_id}
    announce(connection, shard.job_id, f"{KIND}.{_WORDS.get(state, state)}", told)
    return True
