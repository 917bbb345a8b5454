"""A batch's own stages: validated (or rejected), then assembled."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from sqlalchemy import Connection, text

from shared.errors import ModelNotFound, PressrunError
from shared.lifecycle.fence import FENCE, Held, count_zombies
from shared.lifecycle.quotas import hold
from shared.sharding import Slice
from shared.states import JobState, guard
from shared.storage.base import StoredObject

INSERT_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class BadLine:
    """Why a line of an input file was refused. ``line`` is 1-based, None for the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class NewFile:
    """A result file to be made visible."""

    file_id: str
    filename: str
    stored: StoredObject


_CLOSE_SHARD = text(f"""
UPDATE shards s SET state = 'succeeded', ended_at = clock_timestamp(), output_sha256 = :sha256
 WHERE s.id = :id AND {FENCE} RETURNING s.job_id
""")

_ALREADY_CLOSED = text("""
SELECT 1 FROM shards WHERE id = :id AND epoch = :epoch AND session_id = :me
   AND state = 'succeeded' AND output_sha256 IS NOT DISTINCT FROM :sha256
""")

_ADD_SLICES = text("""
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, priority, byte_start,
                    byte_end, first_line, row_count, lines, model, expected_seconds)
SELECT j.id, j.tenant_id, d.pool, 'generate', d.ordinal, 'queued', j.priority, d.byte_start,
       d.byte_end, d.first_line, d.row_count, CAST(d.lines AS int[]), d.model, d.seconds
  FROM jobs j, unnest(CAST(:ordinals AS int[]), CAST(:pools AS text[]),
                      CAST(:starts AS bigint[]), CAST(:ends AS bigint[]),
                      CAST(:firsts AS int[]), CAST(:counts AS int[]), CAST(:lines AS text[]),
                      CAST(:models AS text[]), CAST(:seconds AS double precision[]))
       AS d (ordinal, pool, byte_start, byte_end, first_line, row_count, lines, model, seconds)
 WHERE j.id = :job
""")

_BEGIN_GENERATING = text("""
WITH job AS (
    UPDATE jobs SET stage = 'generate', shards_open = :shards, rows_total = :rows,
           model = :model, in_progress_at = clock_timestamp(), version = version + 1
     WHERE id = :job RETURNING id, tenant_id)
INSERT INTO events (tenant_id, job_id, type) SELECT tenant_id, id, 'batch.in_progress' FROM job
RETURNING tenant_id
""")

_READ_DETAIL = text("SELECT detail FROM jobs WHERE id = :job FOR UPDATE")
_WRITE_DETAIL = text("UPDATE jobs SET detail = CAST(:detail AS json) WHERE id = :job")
_HOLD_MODELS = text("""
SELECT id FROM models WHERE id = ANY(:models) AND deleted_at IS NULL ORDER BY id FOR KEY SHARE
""")
_NEED_MODELS = text("""
INSERT INTO job_models (job_id, tenant_id, model_id)
SELECT j.id, j.tenant_id, m.id FROM jobs j, unnest(CAST(:models AS text[])) AS m (id)
 WHERE j.id = :job
""")

_REJECT = text(f"""
WITH job AS (
    UPDATE jobs j SET state = 'failed', shards_open = 0, errors = CAST(:errors AS json),
           error_code = :code, error_message = :message,
           version = version + 1, ended_at = clock_timestamp()
     WHERE j.id = :job AND {guard("j.state", JobState.FAILED)} RETURNING j.id, j.tenant_id)
INSERT INTO events (tenant_id, job_id, type) SELECT tenant_id, id, 'batch.failed' FROM job
""")

_ADD_FILE = text("""
INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key, expires_at)
SELECT :file_id, j.tenant_id, :filename, 'batch_output', :bytes, :sha256, :key,
       clock_timestamp() + make_interval(secs => CAST(:seconds AS double precision))
  FROM jobs j WHERE j.id = :job
""")

_END_BATCH = text(f"""
WITH job AS (
    UPDATE jobs j
       SET state = coalesce(j.stop_reason, 'succeeded'), output_file_id = :output,
           error_file_id = :errors, shards_open = 0, rows_completed = :completed,
           rows_failed = :failed, version = version + 1, ended_at = clock_timestamp()
     WHERE j.id = :job AND {guard("j.state", JobState.SUCCEEDED)}
    RETURNING j.id, j.tenant_id, j.state)
INSERT INTO events (tenant_id, job_id, type)
SELECT tenant_id, id,
       'batch.' || CASE state WHEN 'succeeded' THEN 'completed' ELSE state END FROM job
""")


def finish_validation(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    slices: Sequence[Slice],
    models: Mapping[str, str] = MappingProxyType({}),
    needed: Collection[str] = (),
    model: str | None = None,
) -> bool:
    """Opens a valid batch for generation, each slice in its pool; False means this worker is a
    zombie. ``models`` are those that hold the aliases which its rows name, by alias: from here on
    they are what the batch's rows mean by these names. ``needed`` are models that jobs made and
    rows name, by whatever name: they stay as well. ``model`` is the one that all rows name.

    Raises ModelNotFound when one of them was deleted since: validate again. Raises QuotaExceeded or
    BudgetExceeded when the tenant may not have all of the rows.
    """
    job_id = _close_shard(connection, session_id, held, sha256=None)
    if job_id is None:
        return _already_closed(connection, session_id, held, sha256=None)
    for start in range(0, len(slices), INSERT_AT_ONCE):
        part = slices[start : start + INSERT_AT_ONCE]
        connection.execute(
            _ADD_SLICES,
            {
                "job": job_id,
                "pools": [item.pool for item in part],
                "ordinals": [item.ordinal for item in part],
                "starts": [item.byte_start for item in part],
                "ends": [item.byte_end for item in part],
                "firsts": [item.first_line for item in part],
                "counts": [item.row_count for item in part],
                "lines": [_int_array(item.lines) for item in part],
                "models": [item.model for item in part],
                "seconds": [item.seconds or None for item in part],
            },
        )
    rows = sum(item.row_count for item in slices)
    values = {"job": job_id, "shards": len(slices), "rows": rows, "model": model}
    tenant_id = connection.execute(_BEGIN_GENERATING, values).scalar_one()
    if models:
        _note_aliases(connection, job_id, models)
    if models or needed:
        _keep_models(connection, job_id, {*models.values(), *needed})
    held_for = {part.ordinal: part.reserved for part in slices}
    hold(connection, tenant_id, [job_id], held_for)
    return True


def _note_aliases(connection: Connection, job_id: str, models: Mapping[str, str]) -> None:
    detail = connection.execute(_READ_DETAIL, {"job": job_id}).scalar_one()
    detail["models"] = dict(models)
    connection.execute(_WRITE_DETAIL, {"job": job_id, "detail": json.dumps(detail)})


def _keep_models(connection: Connection, job_id: str, models: Collection[str]) -> None:
    """They stay until the batch has ended, whoever holds the aliases by then."""
    values = {"job": job_id, "models": sorted(models)}
    if len(connection.execute(_HOLD_MODELS, values).all()) < len(models):
        raise ModelNotFound("a model that rows of the batch name was deleted")
    connection.execute(_NEED_MODELS, values)


def _int_array(numbers: Sequence[int] | None) -> str | None:
    """As Postgres writes it: arrays of arrays of several lengths are no parameter."""
    return None if numbers is None else "{" + ",".join(map(str, numbers)) + "}"


def reject_batch(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    errors: Sequence[BadLine],
    bad_lines: int,
    refusal: PressrunError | None = None,
) -> bool:
    """Fails a batch whose input is not valid; ``errors`` may be the first of ``bad_lines``. With a
    ``refusal``, of one that is valid and more than its tenant may have."""
    job_id = _close_shard(connection, session_id, held, sha256=None)
    if job_id is None:
        return _already_closed(connection, session_id, held, sha256=None)
    found = f"{bad_lines} bad line{'s' if bad_lines != 1 else ''}"
    connection.execute(
        _REJECT,
        {
            "job": job_id,
            "errors": json.dumps([asdict(error) for error in errors]),
            "code": "invalid_input_file" if refusal is None else refusal.code,
            "message": f"the input file was rejected: {found}"
            if refusal is None
            else refusal.message,
        },
    )
    return True


def finish_assembly(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    output: NewFile | None,
    errors: NewFile | None,
    rows_completed: int,
    rows_failed: int,
    keep_seconds: float | None,
    error_counts: Mapping[str, int] = MappingProxyType({}),
    commonest_message: str | None = None,
) -> bool:
    """Makes a batch's files visible and ends it; False means this worker is a zombie.

    ``keep_seconds`` is how long the new files live, None for ever. ``error_counts`` is how often
    rows failed with each code, ``commonest_message`` what the first one with the commonest said.
    """
    sha256 = "+".join(file.stored.sha256 if file else "" for file in (output, errors))
    job_id = _close_shard(connection, session_id, held, sha256=sha256)
    if job_id is None:
        return _already_closed(connection, session_id, held, sha256=sha256)
    for file in (output, errors):
        if file is not None:
            _add_file(connection, job_id, file, keep_seconds)
    if error_counts:
        detail = connection.execute(_READ_DETAIL, {"job": job_id}).scalar_one()
        detail["error_counts"] = dict(error_counts)
        detail["commonest_message"] = commonest_message
        connection.execute(_WRITE_DETAIL, {"job": job_id, "detail": json.dumps(detail)})
    connection.execute(
        _END_BATCH,
        {
            "job": job_id,
            "output": output and output.file_id,
            "errors": errors and errors.file_id,
            "completed": rows_completed,
            "failed": rows_failed,
        },
    )
    return True


def _add_file(
    connection: Connection, job_id: str, file: NewFile, keep_seconds: float | None
) -> None:
    values = {
        "job": job_id,
        "file_id": file.file_id,
        "filename": file.filename,
        "bytes": file.stored.bytes,
        "sha256": file.stored.sha256,
        "key": file.stored.key,
        "seconds": keep_seconds,
    }
    connection.execute(_ADD_FILE, values)


def _close_shard(
    connection: Connection, session_id: str, held: Held, *, sha256: str | None
) -> str | None:
    job_id: str | None = connection.execute(
        _CLOSE_SHARD,
        {"me": session_id, "id": held.shard_id, "epoch": held.epoch, "sha256": sha256},
    ).scalar()
    return job_id


def _already_closed(
    connection: Connection, session_id: str, held: Held, *, sha256: str | None
) -> bool:
    values = {"me": session_id, "id": held.shard_id, "epoch": held.epoch, "sha256": sha256}
    if connection.execute(_ALREADY_CLOSED, values).scalar():
        return True
    count_zombies(connection, [held])
    return False
