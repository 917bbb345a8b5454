"""Sweeps: a fine-tuning job that searches, and its trials, which are fine-tuning jobs of their own.

The shard of stage ``sweep`` is claimed whenever there may be something to decide: it adds trials
and puts itself back, blocked for as long as none of them has ended (``add_trials``), or ends the
job (``sweep_end``). Trials end like any other job; a pass gathers what has ended
(``collect_trials``) and lets the sweep's shard go on.

Lock order is trials, then the sweep's job, then its blocked shard, which is written under the lock
of that job alone. Nobody waits for a trial's job while holding its sweep's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.lifecycle.fence import FENCE, Held, count_zombies
from shared.lifecycle.release import ReleaseReason, release
from shared.lifecycle.stop import request_stop
from shared.lifecycle.tuning_close import digest
from shared.lifecycle.tuning_events import CREATED, NOTE, announce
from shared.pools import TRAIN
from shared.states import OPEN_JOB, JobState, Stage, StopReason, open_states

MOST_EVALUATIONS = 1_000
"""Values of a trial that are kept; a recipe looks at its validation data about ten times."""

_HOLD = text(f"SELECT s.job_id FROM shards s WHERE s.id = :id AND {FENCE} FOR UPDATE")

_READ_PARENT = text("""
SELECT id, tenant_id, model, detail, stop_reason, paused_at FROM jobs WHERE id = :job FOR UPDATE
""")

_ADD_JOB = text("""
WITH job AS (
    INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, metadata, priority,
                      input_file_id, validation_file_id, detail, shards_open, rows_total,
                      in_progress_at)
    SELECT :id, p.tenant_id, p.kind, 'queued', :stage, p.endpoint, p.model, CAST(:spec AS json),
           p.metadata, p.priority, p.input_file_id, p.validation_file_id, CAST(:detail AS json),
           1, 1, clock_timestamp()
      FROM jobs p WHERE p.id = :parent
    RETURNING id, tenant_id, priority
)
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, priority)
SELECT id, tenant_id, :pool, :stage, 0, 'queued', priority FROM job
""")

_ADD_TRIAL = text("""
INSERT INTO trials (job_id, parent_id, number, params)
VALUES (:id, :parent, :number, CAST(:params AS json))
""")

_COUNT = text("""
SELECT count(t.job_id) FILTER (WHERE t.ended_at IS NULL) AS open, count(t.job_id) AS made,
       max(w.trials) AS wanted
  FROM sweeps w LEFT JOIN trials t ON t.parent_id = w.job_id WHERE w.job_id = :parent
""")

# What was decided is kept: losses and errors of the claims before it are forgiven.
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
SELECT t.job_id, t.parent_id, t.number, t.pruned_at, w.metric, c.state, c.result, c.detail,
       c.error_message
  FROM trials t JOIN sweeps w ON w.job_id = t.parent_id JOIN jobs c ON c.id = t.job_id
 WHERE t.ended_at IS NULL AND c.state NOT IN ({OPEN_JOB})
 ORDER BY t.parent_id, t.number LIMIT :limit FOR UPDATE OF t SKIP LOCKED
""")

_EVALUATIONS = text("""
SELECT m.step, CAST(m.values ->> CAST(:metric AS text) AS double precision) AS value
  FROM training_metrics m
 WHERE m.job_id = :job AND json_typeof(m.values -> CAST(:metric AS text)) = 'number'
 ORDER BY m.step LIMIT :limit
""")

_END_TRIAL = text("""
UPDATE trials SET ended_at = clock_timestamp(), value = :value,
       evaluations = CAST(:evaluations AS json)
 WHERE job_id = :job
""")

_LOCK_PARENT = text("SELECT state FROM jobs WHERE id = :parent FOR UPDATE")

_GO_ON = text("""
UPDATE shards SET blocked_n = 0
 WHERE job_id = :parent AND stage = 'sweep' AND state = 'queued' AND blocked_n > 0
""")

_PROGRESS = text(f"""
UPDATE jobs j
   SET version = j.version + 1,
       progress = (SELECT count(*) FROM trials t
                    WHERE t.parent_id = j.id AND t.ended_at IS NOT NULL)
                  / CAST((SELECT w.trials FROM sweeps w WHERE w.job_id = j.id) AS double precision)
 WHERE j.id = :parent AND j.state IN ({OPEN_JOB})
""")

_LOCK_TRIAL = text("""
SELECT t.parent_id, c.tenant_id FROM trials t JOIN jobs c ON c.id = t.job_id
 WHERE t.job_id = :job AND t.ended_at IS NULL AND t.pruned_at IS NULL
   FOR UPDATE OF t SKIP LOCKED
""")

_OPEN = open_states(JobState)

_MARK_PRUNED = text("UPDATE trials SET pruned_at = clock_timestamp() WHERE job_id = :job")


@dataclass(frozen=True, slots=True)
class NewTrial:
    """A trial that is to be run."""

    job_id: str
    number: int
    params: Mapping[str, Any]
    spec: str
    """Of its own job, as JSON."""


def add_trials(
    connection: Connection,
    session_id: str,
    held: Held,
    new: Sequence[NewTrial],
    *,
    parallel: int,
) -> bool:
    """Adds trials to a sweep and puts its shard back, to wait until one of at most ``parallel``
    trials has ended. A sweep that was paused or asked to stop gets none; one that was asked to stop
    ends here, when none of its trials is open. False means that this worker is a zombie.
    """
    # In no other answer: ids are random, and an attempt that adds nothing says its epoch.
    said = digest("trials", held.epoch, [trial.job_id for trial in new])
    values = {"me": session_id, "id": held.shard_id, "epoch": held.epoch, "said": said}
    parent_id = connection.execute(_HOLD, values).scalar()
    if parent_id is None:
        if connection.execute(_ALREADY_BACK, values).scalar():
            return True
        count_zombies(connection, [held])
        return False
    parent = connection.execute(_READ_PARENT, {"job": parent_id}).one()
    if parent.stop_reason is None and parent.paused_at is None:
        for trial in new:
            _add(connection, parent, trial)
    count = connection.execute(_COUNT, {"parent": parent_id}).one()
    if parent.stop_reason is not None and count.open == 0:
        release(connection, session_id, held, ReleaseReason.PREEMPTED)
        return True
    full = count.open >= parallel or count.made >= count.wanted
    waits = count.open > 0 and (full or parent.stop_reason is not None)
    blocked = int(waits or parent.paused_at is not None)
    connection.execute(_PUT_BACK, values | {"blocked": blocked})
    return True


def _add(connection: Connection, parent: Row[Any], trial: NewTrial) -> None:
    """The data were judged once: the trial begins with its training, and shows what was found."""
    shared = ("lineage", "data", "card_file_id")
    detail = {name: parent.detail[name] for name in shared if name in parent.detail}
    params = dict(trial.params)
    detail["sweep"] = {"parent": parent.id, "number": trial.number, "params": params}
    connection.execute(
        _ADD_JOB,
        {
            "id": trial.job_id,
            "parent": parent.id,
            "stage": Stage.TRAIN,
            "pool": TRAIN,
            "spec": trial.spec,
            "detail": json.dumps(detail),
        },
    )
    connection.execute(
        _ADD_TRIAL,
        {
            "id": trial.job_id,
            "parent": parent.id,
            "number": trial.number,
            "params": json.dumps(params),
        },
    )
    told = {"model": parent.model, "parent": parent.id, "number": trial.number, "params": params}
    announce(connection, trial.job_id, CREATED, told)
    message = f"trial {trial.number}: {trial.job_id} with {_words(params)}"
    announce(connection, parent.id, NOTE, {"message": message, "level": "info"})


def _words(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in params.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def collect_trials(connection: Connection, *, limit: int = 100) -> int:
    """Counts trials that have ended, however they did, and lets their sweeps go on; returns how
    many. Any number of processes may run it."""
    rows = connection.execute(_ENDED, {"limit": limit}).all()
    for parent_id in sorted({row.parent_id for row in rows}):
        parent = {"parent": parent_id}
        is_open = connection.execute(_LOCK_PARENT, parent).scalar_one() in _OPEN
        for row in rows:
            if row.parent_id == parent_id:
                value = _end_trial(connection, row)
                if is_open:
                    message = _ending(row, value)
                    announce(connection, parent_id, NOTE, {"message": message, "level": "info"})
        connection.execute(_GO_ON, parent)
        connection.execute(_PROGRESS, parent)
    return len(rows)


def _end_trial(connection: Connection, row: Row[Any]) -> float | None:
    asked = {"job": row.job_id, "metric": row.metric, "limit": MOST_EVALUATIONS}
    found = [(item.step, item.value) for item in connection.execute(_EVALUATIONS, asked)]
    value = _value_of(row, dict(found)) if row.state == JobState.SUCCEEDED else None
    evaluations = json.dumps([value for _, value in found])
    connection.execute(_END_TRIAL, {"job": row.job_id, "value": value, "evaluations": evaluations})
    return value


def _value_of(row: Row[Any], evaluations: Mapping[int, float]) -> float | None:
    """The metric of the model that was delivered: as the recipe measured it at the end, or as it
    was at the step that the weights are of."""
    after = (row.result.get("metrics") or {}).get("after") or {}
    value = after.get(row.metric)
    if value is None:
        value = evaluations.get(row.detail.get("training", {}).get("step", -1))
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _ending(row: Row[Any], value: float | None) -> str:
    begun = f"trial {row.number}"
    if value is not None:
        return f"{begun}: {row.metric}={value:.6g}"
    if row.state == JobState.SUCCEEDED:
        return f"{begun} has no {row.metric}"
    if row.pruned_at is not None:
        return f"{begun} was pruned"
    why = f": {row.error_message}" if row.error_message else ""
    return f"{begun} {row.state}{why}"


def prune_trial(connection: Connection, job_id: str, why: str) -> bool:
    """Asks a trial to stop because it promises nothing; ``why`` is told to its tenant. False when
    it has ended, is stopping already, or somebody else is at it."""
    trial = connection.execute(_LOCK_TRIAL, {"job": job_id}).one_or_none()
    if trial is None:
        return False
    reason = StopReason.CANCELLED
    if not request_stop(connection, tenant_id=trial.tenant_id, job_id=job_id, reason=reason):
        return False
    connection.execute(_MARK_PRUNED, {"job": job_id})
    announce(connection, job_id, NOTE, {"message": f"pruned: {why}", "level": "info"})
    return True
