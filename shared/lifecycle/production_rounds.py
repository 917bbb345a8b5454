"""The rounds of a production: its next batch, and what becomes known of that.

``continue_production`` keeps what a pass over the data has found, adds the batch that comes next
and puts the shard back, blocked until that ends, in one fenced transaction. Batches end like any
other; a pass gathers those that have ended (``collect_production_batches``) and lets the
production's shard go on.

Lock order is as of sweeps: the batch's row in ``production_batches``, then the production's job,
then its blocked shard, which is written under the lock of that job alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.lifecycle.fence import FENCE, Held, count_zombies
from shared.lifecycle.tuning_close import digest
from shared.lifecycle.tuning_events import announce
from shared.pools import UPKEEP
from shared.specs.productions import INTERMEDIATE, KIND
from shared.states import OPEN_JOB, Stage
from shared.storage.base import StoredObject

_HOLD = text(f"SELECT s.job_id FROM shards s WHERE s.id = :id AND {FENCE} FOR UPDATE")

_READ_PARENT = text("""
SELECT id, tenant_id, priority, stop_reason FROM jobs WHERE id = :job FOR UPDATE
""")

# Its time is up for its tenant from the start: it is nobody's to read but the batch's, and its
# object goes with the production's others.
_ADD_INPUT = text("""
INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key, deleted_at)
VALUES (:file, :tenant, :filename, :purpose, :bytes, :sha256, :key, clock_timestamp())
""")

_ADD_JOB = text("""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec, metadata, priority,
                      input_file_id, shards_open, expires_at)
    SELECT :id, p.tenant_id, 'batch', 'queued', :stage, :endpoint, CAST(:spec AS json),
           p.metadata, p.priority, :file, 1, p.expires_at
      FROM jobs p WHERE p.id = :parent
    RETURNING id, tenant_id, priority
)
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, priority)
SELECT id, tenant_id, :pool, :stage, 0, 'queued', priority FROM job
""")

_ADD_BATCH = text("""
INSERT INTO production_batches (job_id, tenant_id, parent_id, round, phase, rows)
VALUES (:id, :tenant, :parent, :round, :phase, :rows)
""")

_KEEP_FOUND = text("""
UPDATE productions SET round = :round, phase = :phase, found = CAST(:found AS json)
 WHERE job_id = :parent
""")

_PROGRESS = text(f"""
UPDATE jobs SET version = version + 1, rows_completed = :kept,
       progress = greatest(coalesce(progress, 0), CAST(:progress AS double precision))
 WHERE id = :parent AND state IN ({OPEN_JOB})
""")

_OPEN = text("""
SELECT count(*) FROM production_batches WHERE parent_id = :parent AND ended_at IS NULL
""")

# What was found is kept: losses and errors of the claims before it are forgiven.
_PUT_BACK = text(f"""
UPDATE shards s
   SET state = 'queued', blocked_n = :blocked, ready_seq = NULL, output_sha256 = :said,
       error_n = 0, lost_n = 0, suspect = false
 WHERE s.id = :id AND {FENCE}
""")

_ALREADY_BACK = text("""
SELECT 1 FROM shards WHERE id = :id AND epoch = :epoch AND session_id = :me
   AND state <> 'running' AND output_sha256 = :said
""")

_ENDED = text(f"""
SELECT b.job_id, b.parent_id, b.round, b.phase, c.state, c.rows_completed, c.rows_failed,
       c.input_tokens, c.output_tokens, c.output_file_id, c.error_file_id
  FROM production_batches b JOIN jobs c ON c.id = b.job_id
 WHERE b.ended_at IS NULL AND c.state NOT IN ({OPEN_JOB})
 ORDER BY b.parent_id, b.job_id LIMIT :limit FOR UPDATE OF b SKIP LOCKED
""")

_END_BATCH = text("""
UPDATE production_batches SET ended_at = clock_timestamp() WHERE job_id = :job
""")

# Results of a batch are the production's: their objects stay until that is cleaned away.
_HIDE_FILES = text("""
UPDATE files SET deleted_at = clock_timestamp()
 WHERE id IN (:output, :errors) AND deleted_at IS NULL
""")

_LOCK_PARENT = text("SELECT state FROM jobs WHERE id = :parent FOR UPDATE")

_COUNT_TOKENS = text("""
UPDATE jobs SET version = version + 1, input_tokens = input_tokens + :input,
       output_tokens = output_tokens + :output
 WHERE id = :parent
""")

_GO_ON = text("""
UPDATE shards SET blocked_n = 0
 WHERE job_id = :parent AND stage = 'produce' AND state = 'queued' AND blocked_n > 0
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProductionBatch:
    """The batch that a production has run next."""

    job_id: str
    file_id: str
    endpoint: str
    round: int
    phase: int
    rows: int
    stored: StoredObject
    """Its input."""


def continue_production(
    connection: Connection,
    session_id: str,
    held: Held,
    new: NewProductionBatch,
    *,
    found: Mapping[str, Any],
    progress: float,
    kept: int,
) -> bool:
    """Keeps ``found``, adds the next batch and puts the production's shard back, to wait until
    that has ended. One that was asked to stop gets none: it is claimed again at once, to write
    down what it has. ``progress`` is 0 to 1, ``kept`` how many lines of the output are certain.
    False means that this worker is a zombie."""
    # In no other answer: ids are random.
    said = digest("continued", held.epoch, new.job_id)
    values = {"me": session_id, "id": held.shard_id, "epoch": held.epoch, "said": said}
    parent_id = connection.execute(_HOLD, values).scalar()
    if parent_id is None:
        if connection.execute(_ALREADY_BACK, values).scalar():
            return True
        count_zombies(connection, [held])
        return False
    parent = connection.execute(_READ_PARENT, {"job": parent_id}).one()
    place = {"round": new.round, "phase": new.phase}
    kept_now = {"parent": parent_id, "found": json.dumps(dict(found)), **place}
    connection.execute(_KEEP_FOUND, kept_now)
    if parent.stop_reason is None:
        _add(connection, parent, new)
    values_now = {"parent": parent_id, "progress": progress, "kept": kept}
    connection.execute(_PROGRESS, values_now)
    is_open = connection.execute(_OPEN, {"parent": parent_id}).scalar_one() > 0
    connection.execute(_PUT_BACK, values | {"blocked": int(is_open)})
    return True


def _add(connection: Connection, parent: Row[Any], new: NewProductionBatch) -> None:
    place = {"round": new.round, "phase": new.phase}
    file = {
        "file": new.file_id,
        "tenant": parent.tenant_id,
        "filename": f"{new.job_id}_input.jsonl",
        "purpose": INTERMEDIATE,
        "bytes": new.stored.bytes,
        "sha256": new.stored.sha256,
        "key": new.stored.key,
    }
    connection.execute(_ADD_INPUT, file)
    connection.execute(
        _ADD_JOB,
        {
            "id": new.job_id,
            "parent": parent.id,
            "stage": Stage.VALIDATE,
            "pool": UPKEEP,
            "endpoint": new.endpoint,
            "spec": json.dumps({"production": parent.id, "priority": parent.priority, **place}),
            "file": new.file_id,
        },
    )
    batch = {"id": new.job_id, "tenant": parent.tenant_id, "parent": parent.id, "rows": new.rows}
    connection.execute(_ADD_BATCH, {**batch, **place})
    told = {"batch": new.job_id, "rows": new.rows, **place}
    announce(connection, parent.id, f"{KIND}.batch", told)


def collect_production_batches(connection: Connection, *, limit: int = 100) -> int:
    """Counts batches of productions that have ended, however they did, and lets their productions
    go on; returns how many. Any number of processes may run it."""
    rows = connection.execute(_ENDED, {"limit": limit}).all()
    for row in rows:
        parent = {"parent": row.parent_id}
        connection.execute(_LOCK_PARENT, parent)
        connection.execute(_END_BATCH, {"job": row.job_id})
        files = {"output": row.output_file_id, "errors": row.error_file_id}
        connection.execute(_HIDE_FILES, files)
        tokens = {"input": row.input_tokens, "output": row.output_tokens}
        connection.execute(_COUNT_TOKENS, parent | tokens)
        told = {
            "batch": row.job_id,
            "round": row.round,
            "phase": row.phase,
            "state": row.state,
            "succeeded": row.rows_completed,
            "failed": row.rows_failed,
        }
        announce(connection, row.parent_id, f"{KIND}.batch_ended", told)
        connection.execute(_GO_ON, parent)
    return len(rows)
