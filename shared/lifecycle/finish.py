"""A worker's commit: fenced, idempotent for the same bytes, usage and event in the same breath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.lifecycle.artifacts import NewArtifact, add_artifacts, insert_from, listed
from shared.lifecycle.fence import FENCE, FENCE_MANY, Held, count_zombies
from shared.lifecycle.settle import settle_batch
from shared.lifecycle.usage import RAN, UsageLine, add_usage, cost, made, priced
from shared.states import JobState, ShardState, guard
from shared.storage.base import StoredObject


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The end of a single generation: a result, an error, or neither when it was stopped."""

    held: Held
    state: ShardState
    sha256: str
    """Of the result or error; tells a repeated commit from another one."""
    result: str | None = None
    """The endpoint's response body as JSON."""
    error_code: str | None = None
    error_message: str | None = None
    error_param: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    artifacts: Sequence[NewArtifact] = ()
    compute_seconds: float | None = None
    """As in ``UsageLine``."""


@dataclass(frozen=True, slots=True)
class SliceEnd:
    """The end of one slice of a batch."""

    held: Held
    state: ShardState
    """SUCCEEDED when every row has a line; CANCELLED when stopped part-way (rows so far kept)."""
    output: StoredObject | None
    errors: StoredObject | None
    rows_completed: int
    rows_failed: int
    usage: Sequence[UsageLine]
    artifacts: Sequence[NewArtifact] = ()


_GENERATIONS = f"""
WITH done AS (
    SELECT * FROM unnest(
        CAST(:ids AS bigint[]), CAST(:epochs AS int[]), CAST(:states AS text[]),
        CAST(:hashes AS text[]), CAST(:results AS text[]), CAST(:codes AS text[]),
        CAST(:messages AS text[]), CAST(:params AS text[]), CAST(:inputs AS bigint[]),
        CAST(:outputs AS bigint[]), CAST(:images AS int[]), CAST(:media AS double precision[]),
        CAST(:computes AS double precision[]))
      AS d (id, epoch, state, sha256, result, error_code, error_message, error_param,
            input_tokens, output_tokens, images, media_seconds, compute_seconds)
), shard AS (
    UPDATE shards s
       SET state = d.state, output_sha256 = d.sha256, error_code = d.error_code,
           error_message = d.error_message, ended_at = clock_timestamp(),
           rows_completed = CASE d.state WHEN 'succeeded' THEN 1 ELSE 0 END,
           rows_failed = CASE d.state WHEN 'failed' THEN 1 ELSE 0 END
      FROM done d WHERE s.id = d.id AND {FENCE_MANY}
    RETURNING s.id, s.epoch, s.job_id, s.tenant_id, s.rows_completed, s.rows_failed, d.state,
              d.result, d.error_code, d.error_message, d.error_param, d.input_tokens,
              d.output_tokens, d.images, d.media_seconds,
              coalesce(d.compute_seconds, {RAN}) AS compute_seconds
), job AS (
    UPDATE jobs j
       SET state = CASE shard.state WHEN 'cancelled' THEN coalesce(j.stop_reason, 'cancelled')
                                    ELSE shard.state END,
           result = CAST(shard.result AS json), error_code = shard.error_code,
           error_message = shard.error_message, error_param = shard.error_param,
           input_tokens = shard.input_tokens, output_tokens = shard.output_tokens,
           rows_completed = shard.rows_completed, rows_failed = shard.rows_failed,
           shards_open = 0, version = j.version + 1, ended_at = clock_timestamp()
      FROM shard WHERE j.id = shard.job_id AND {guard("j.state", JobState.SUCCEEDED)}
    RETURNING j.id, j.tenant_id, j.kind, j.state, j.endpoint, j.model
), counted AS (
    INSERT INTO usage (shard_id, endpoint, model, epoch, tenant_id, job_id, rows, input_tokens,
                       output_tokens, images, media_seconds, compute_seconds, cost)
    SELECT shard.id, job.endpoint, job.model, shard.epoch, shard.tenant_id, shard.job_id, 1,
           shard.input_tokens, shard.output_tokens, shard.images, shard.media_seconds,
           shard.compute_seconds, {cost("job.endpoint", "shard")}
      FROM shard JOIN job ON job.id = shard.job_id {priced("job.model")}
     WHERE shard.state = 'succeeded'
), announced AS (
    INSERT INTO events (tenant_id, job_id, type)
    SELECT tenant_id, id,
           CASE WHEN kind = 'generate' THEN 'job.' || state
                WHEN state = 'succeeded' THEN kind || '.completed'
                ELSE kind || '.' || state END
      FROM job
)"""

_WITHOUT_FILES = text(f"{_GENERATIONS} SELECT id, epoch FROM shard")
_WITH_FILES = text(
    f"{_GENERATIONS}, stored AS ({insert_from('shard')}) SELECT id, epoch FROM shard"
)

_ALREADY_MINE = text("""
SELECT s.id, s.epoch
  FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS int[]), CAST(:hashes AS text[]))
       AS d (id, epoch, sha256)
  JOIN shards s ON s.id = d.id AND s.epoch = d.epoch AND s.session_id = :me
   AND s.output_sha256 = d.sha256 AND s.state <> 'running'
""")

_SLICE = text(f"""
UPDATE shards s
   SET state = :state, output_key = :output_key, output_sha256 = :output_sha256,
       output_bytes = :output_bytes, errors_key = :errors_key, errors_sha256 = :errors_sha256,
       errors_bytes = :errors_bytes, rows_completed = :completed, rows_failed = :failed,
       ended_at = clock_timestamp()
 WHERE s.id = :id AND {FENCE}
RETURNING s.job_id, s.tenant_id
""")

_SLICE_ALREADY_MINE = text("""
SELECT 1 FROM shards s
 WHERE s.id = :id AND s.epoch = :epoch AND s.session_id = :me AND s.state = :state
   AND s.output_sha256 IS NOT DISTINCT FROM :output_sha256
   AND s.errors_sha256 IS NOT DISTINCT FROM :errors_sha256
""")


def finish_generations(
    connection: Connection, session_id: str, ends: Sequence[GenerationEnd]
) -> set[Held]:
    """Commits many single generations at once; returns those that are committed, by this call or
    by an earlier one whose answer was lost. The others are zombies: counted, to be dropped.
    """
    identity = {
        "me": session_id,
        "ids": [end.held.shard_id for end in ends],
        "epochs": [end.held.epoch for end in ends],
        "hashes": [end.sha256 for end in ends],
    }
    files = [(end.held, artifact) for end in ends for artifact in end.artifacts]
    counted = [made(end.artifacts) for end in ends]
    rows = connection.execute(
        _WITH_FILES if files else _WITHOUT_FILES,
        identity
        | (listed(files) if files else {})
        | {
            "states": [str(end.state) for end in ends],
            "results": [end.result for end in ends],
            "codes": [end.error_code for end in ends],
            "messages": [end.error_message for end in ends],
            "params": [end.error_param for end in ends],
            "inputs": [end.input_tokens for end in ends],
            "outputs": [end.output_tokens for end in ends],
            "images": [images for images, _ in counted],
            "media": [seconds for _, seconds in counted],
            "computes": [end.compute_seconds for end in ends],
        },
    )
    committed = {Held(*row) for row in rows}
    if len(committed) < len(ends):
        committed |= {Held(*row) for row in connection.execute(_ALREADY_MINE, identity)}
        count_zombies(connection, {end.held for end in ends} - committed)
    return committed


def finish_slice(connection: Connection, session_id: str, end: SliceEnd) -> bool:
    """Commits one slice of a batch; False means this worker is a zombie and must drop it.

    The last slice of a batch opens its assembly.
    """
    output, errors = end.output, end.errors
    values = {
        "me": session_id,
        "id": end.held.shard_id,
        "epoch": end.held.epoch,
        "state": str(end.state),
        "output_key": output and output.key,
        "output_sha256": output and output.sha256,
        "output_bytes": output and output.bytes,
        "errors_key": errors and errors.key,
        "errors_sha256": errors and errors.sha256,
        "errors_bytes": errors and errors.bytes,
        "completed": end.rows_completed,
        "failed": end.rows_failed,
    }
    row = connection.execute(_SLICE, values).one_or_none()
    if row is None:
        if connection.execute(_SLICE_ALREADY_MINE, values).scalar():
            return True
        count_zombies(connection, [end.held])
        return False
    add_artifacts(connection, end.held, end.artifacts)
    rows = sum(line.rows for line in end.usage)
    for line in end.usage:
        add_usage(connection, end.held, line, share=line.rows / max(rows, 1))
    settle_batch(
        connection,
        row.job_id,
        shards=1,
        completed=end.rows_completed,
        failed=end.rows_failed,
        input_tokens=sum(line.input_tokens for line in end.usage),
        output_tokens=sum(line.output_tokens for line in end.usage),
    )
    return True
