"""What the end of one step means for the steps around it, for its row and for its job.

A graph has one outcome. Whichever end decides it marks the graph's last step ``ended``, once, and
that mark is what is counted: on the job, or on the batch's slice that waits for the row.

All of it happens under the lock of the job's row, which ``close_steps`` takes first, so ends of
siblings take turns. Blocked shards, which no claim and no dispatch touches, are written by holders
of that lock alone: the one exception to "shards, then jobs". Waiting shards that are not blocked
may be somebody's this instant and are skipped; one that is claimed in a graph that has ended is
stopped by ``watch``, and one that nobody claims by ``sweep_stopped``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.states import OPEN_JOB, OPEN_SHARD, JobState, ShardState, guard

UNFOLDED = "EXISTS (SELECT 1 FROM steps u WHERE u.slice_id = s.id)"
"""Whether shard ``s`` is a slice whose rows were unfolded: it is not torn away by a stop, since it
has lines to write for the rows that ended before."""

GRAPH_ENDED = """EXISTS (
    SELECT 1 FROM steps g JOIN steps e ON e.job_id = g.job_id AND e.line = g.line AND e.last
     WHERE g.shard_id = s.id AND e.ended)"""
"""Whether shard ``s`` is a step of a graph that has its outcome."""

SEARCHING = """(s.stage = 'sweep' AND EXISTS (
    SELECT 1 FROM trials o WHERE o.parent_id = s.job_id AND o.ended_at IS NULL))"""
"""Whether shard ``s`` is a sweep with open trials: those are stopped first, and it ends with the
last of them."""

STOPPING = f"""(j.stop_reason IS NOT NULL AND s.stage NOT IN ('assemble', 'produce')
             AND NOT {UNFOLDED} AND NOT {SEARCHING})"""
"""Whether shard ``s`` of job ``j`` is to end because the job was asked to stop. A production
writes down what its batches have made until then, and ends by itself."""

_FIND = text("""
SELECT t.shard_id, t.job_id, t.line, t.name, t.last
  FROM steps t WHERE t.shard_id = ANY(:shards) ORDER BY t.shard_id
""")

_COUNT = text(f"""
UPDATE jobs j
   SET version = j.version + 1, input_tokens = j.input_tokens + :input_tokens,
       output_tokens = j.output_tokens + :output_tokens,
       rows_completed = j.rows_completed + CASE j.stage WHEN 'step' THEN :completed ELSE 0 END,
       rows_failed = j.rows_failed + CASE j.stage WHEN 'step' THEN :failed ELSE 0 END,
       shards_open = CASE WHEN j.stage = 'step' AND j.state IN ({OPEN_JOB})
                          THEN j.shards_open - :closed ELSE j.shards_open END
 WHERE j.id = :job RETURNING j.stop_reason
""")

_UNBLOCK = text("""
UPDATE shards s SET blocked_n = s.blocked_n - 1
  FROM steps t
 WHERE t.job_id = :job AND t.line = :line AND :name = ANY(t.needs) AND s.id = t.shard_id
   AND s.state = 'queued' AND s.blocked_n > 0
""")

_MARK = text("""
UPDATE steps SET ended = true WHERE job_id = :job AND line = :line AND last AND NOT ended
RETURNING slice_id
""")

_CANCEL_WAITING = text(f"""
WITH waiting AS (
    SELECT s.id FROM steps t JOIN shards s ON s.id = t.shard_id
     WHERE t.job_id = :job AND t.line = :line AND s.state IN ('queued', 'ready')
       FOR UPDATE OF s SKIP LOCKED)
UPDATE shards s SET state = 'cancelled', ended_at = clock_timestamp()
  FROM waiting WHERE s.id = waiting.id AND {guard("s.state", ShardState.CANCELLED)}
""")

# A graph that nothing decided and in which nothing goes on: it was stopped.
_MARK_STOPPED = text(f"""
UPDATE steps t SET ended = true
  FROM shards l
 WHERE t.job_id = :job AND t.line = ANY(:lines) AND t.last AND NOT t.ended
   AND l.id = t.shard_id AND l.state = 'cancelled'
   AND NOT EXISTS (SELECT 1 FROM steps o JOIN shards s ON s.id = o.shard_id
                    WHERE o.job_id = t.job_id AND o.line = t.line
                      AND s.state IN ({OPEN_SHARD}))
RETURNING t.slice_id
""")

_COUNT_ROWS = text("""
UPDATE shards s
   SET blocked_n = s.blocked_n - d.rows, rows_completed = s.rows_completed + d.completed,
       rows_failed = s.rows_failed + d.rows - d.completed
  FROM unnest(CAST(:slices AS bigint[]), CAST(:rows AS int[]), CAST(:completed AS int[]))
       AS d (id, rows, completed)
 WHERE s.id = d.id AND s.blocked_n >= d.rows
""")


def _end_job(target: JobState) -> str:
    return f"""
    WITH job AS (
        UPDATE jobs j
           SET state = CASE :state WHEN 'stopped' THEN coalesce(j.stop_reason, 'cancelled')
                                   ELSE :state END,
               result = CAST(:result AS json), error_code = :code, error_message = :message,
               shards_open = 0, version = j.version + 1, ended_at = clock_timestamp()
         WHERE j.id = :job AND {guard("j.state", target)}
        RETURNING j.id, j.tenant_id, j.kind, j.state)
    INSERT INTO events (tenant_id, job_id, type)
    SELECT tenant_id, id,
           kind || '.' || CASE state WHEN 'succeeded' THEN 'completed' ELSE state END FROM job
    """


_SUCCEED_JOB = text(_end_job(JobState.SUCCEEDED))
_FAIL_JOB = text(_end_job(JobState.FAILED))


@dataclass(frozen=True, slots=True)
class ClosedStep:
    """A step that has just left its last open state."""

    job_id: str
    line: int
    name: str
    last: bool
    state: ShardState
    error_message: str | None = None
    result: str | None = None


def find_steps(
    connection: Connection, shards: dict[int, tuple[ShardState, str | None]]
) -> list[ClosedStep]:
    """The steps of closed shards, given each one's state and why it failed."""
    rows = connection.execute(_FIND, {"shards": list(shards)}).all()
    return [
        ClosedStep(row.job_id, row.line, row.name, row.last, *shards[row.shard_id]) for row in rows
    ]


def close_steps(
    connection: Connection,
    job_id: str,
    closed: Sequence[ClosedStep],
    *,
    input_tokens: int = 0,
    output_tokens: int = 0,
) -> None:
    """Carries steps of one job, already closed, over to their graphs. Takes the job's lock."""
    states = [step.state for step in closed]
    stop_reason = connection.execute(
        _COUNT,
        {
            "job": job_id,
            "closed": len(closed),
            "completed": states.count(ShardState.SUCCEEDED),
            "failed": states.count(ShardState.FAILED),
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
        },
    ).scalar_one()
    for step in closed:
        if step.state == ShardState.FAILED or (step.last and step.state == ShardState.SUCCEEDED):
            _decide(connection, step)
        elif step.state == ShardState.SUCCEEDED:
            connection.execute(_UNBLOCK, {"job": job_id, "line": step.line, "name": step.name})
        elif stop_reason is None:  # nobody asked for it; what needs the step can't run either
            connection.execute(_CANCEL_WAITING, {"job": job_id, "line": step.line})
    _end_stopped(connection, job_id, sorted({step.line for step in closed}))


def _decide(connection: Connection, step: ClosedStep) -> None:
    """The step's end is its graph's, unless another one was first."""
    graph = {"job": step.job_id, "line": step.line}
    mark = connection.execute(_MARK, graph).one_or_none()
    if mark is None:
        return
    connection.execute(_CANCEL_WAITING, graph)
    good = step.state == ShardState.SUCCEEDED
    if mark.slice_id is not None:
        _count_rows(connection, [mark.slice_id], completed=int(good))
        return
    connection.execute(
        _SUCCEED_JOB if good else _FAIL_JOB,
        {
            "job": step.job_id,
            "state": str(JobState.SUCCEEDED if good else JobState.FAILED),
            "result": step.result,
            "code": None if good else "step_failed",
            "message": None if good else failure(step.name, step.error_message),
        },
    )


def _end_stopped(connection: Connection, job_id: str, lines: Sequence[int]) -> None:
    """Ends those graphs that a stop has emptied."""
    slices = list(
        connection.execute(_MARK_STOPPED, {"job": job_id, "lines": list(lines)}).scalars()
    )
    if waiting := [slice_id for slice_id in slices if slice_id is not None]:
        _count_rows(connection, waiting, completed=0)
    if len(waiting) < len(slices):
        values = {"state": "stopped", "result": None, "code": None, "message": None}
        connection.execute(_FAIL_JOB, values | {"job": job_id})


def _count_rows(connection: Connection, slices: Sequence[int], *, completed: int) -> None:
    """Takes one row off a slice's waiting for each time that ``slices`` names it."""
    ids = sorted(set(slices))
    rows = [slices.count(slice_id) for slice_id in ids]
    connection.execute(
        _COUNT_ROWS,
        {"slices": ids, "rows": rows, "completed": [completed * count for count in rows]},
    )


def failure(name: str, why: str | None) -> str:
    """What a job or a row says when a step of its graph failed."""
    return f"step '{name}': {why or 'it failed'}"
