"""A training while it runs: the numbers of its steps, and its checkpoints. Fenced."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from shared.db.models import ModelFile
from shared.lifecycle.fence import FENCE, Held, count_zombies
from shared.lifecycle.tuned_models import NewModel, add_model, withdraw_models
from shared.lifecycle.tuning_events import CHECKPOINT, METRICS, STARTED, announce
from shared.states import OPEN_JOB

KEPT_CHECKPOINTS = 2
"""The newest ones, of which one may turn out to be damaged; the best one stays besides."""

STARTED_AT = "resumed_from"
"""In the detail of a report: the step after which the attempt begins."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)

_HOLD = text(f"SELECT s.job_id, s.tenant_id FROM shards s WHERE s.id = :id AND {FENCE} FOR UPDATE")

_READ_JOB = text("SELECT detail, progress FROM jobs WHERE id = :job FOR UPDATE")

# Steps beyond the checkpoint that this attempt goes on from: they are done again.
_UNDONE = text("""
DELETE FROM training_metrics WHERE job_id = :job AND step >= :first AND attempt < :attempt
""")

# A step may be told twice: its loss, then what the evaluation after it found.
_METRICS = text("""
INSERT INTO training_metrics AS m (job_id, step, attempt, epoch, values)
SELECT :job, d.step, :attempt, d.epoch, CAST(d.values AS json)
  FROM unnest(CAST(:steps AS bigint[]), CAST(:epochs AS double precision[]),
              CAST(:values AS text[])) AS d (step, epoch, values)
    ON CONFLICT (job_id, step) DO UPDATE
   SET attempt = excluded.attempt, epoch = excluded.epoch,
       values = CAST(CAST(m.values AS jsonb) || CAST(excluded.values AS jsonb) AS json)
""")

_REPORT = text("""
UPDATE jobs SET progress = coalesce(CAST(:progress AS double precision), progress),
       detail = CAST(:detail AS json), version = version + 1
 WHERE id = :job
""")

_LAST_STEP = text("SELECT coalesce(max(step), -1) FROM checkpoints WHERE job_id = :job")

# The same step twice in one attempt: saved in its turn, and again when asked to stop.
_ADD = text("""
INSERT INTO checkpoints AS c (id, tenant_id, job_id, shard_id, epoch, step, prefix, manifest_key,
                              manifest_sha256, files, bytes, metrics, best, model_id)
VALUES (:checkpoint, :tenant, :job, :id, :epoch, :step, :prefix, :manifest_key, :manifest_sha256,
        CAST(:files AS json), :bytes, CAST(:metrics AS json), :best, :model)
    ON CONFLICT (job_id, epoch, step) DO UPDATE
   SET prefix = excluded.prefix, manifest_key = excluded.manifest_key,
       manifest_sha256 = excluded.manifest_sha256, files = excluded.files,
       bytes = excluded.bytes, metrics = excluded.metrics, best = c.best OR excluded.best,
       model_id = excluded.model_id
RETURNING xmax = 0
""")

_ONE_BEST = text("""
UPDATE checkpoints SET best = false
 WHERE job_id = :job AND best AND NOT (epoch = :epoch AND step = :step)
""")

# What this step takes the place of goes in any case. One that is asked for by name, or that another
# job starts from, stays.
_DROP = text(f"""
WITH ranked AS (
    SELECT id, replaced,
           row_number() OVER (PARTITION BY replaced ORDER BY epoch DESC, step DESC) AS place
      FROM (SELECT id, epoch, step, step = :step AND epoch < :epoch AS replaced
              FROM checkpoints WHERE job_id = :job AND dropped_at IS NULL) kept)
UPDATE checkpoints c SET dropped_at = clock_timestamp()
  FROM ranked
 WHERE ranked.id = c.id
   AND (ranked.replaced
        OR ranked.place > {KEPT_CHECKPOINTS} AND NOT c.best
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.model = c.model_id
                              AND j.model LIKE 'ft:%' AND j.tenant_id = c.tenant_id
                              AND j.state IN ({OPEN_JOB}))
           AND NOT EXISTS (SELECT 1 FROM job_models n JOIN jobs j ON j.id = n.job_id
                            WHERE n.model_id = c.model_id AND n.tenant_id = c.tenant_id
                              AND j.state IN ({OPEN_JOB}))
           AND NOT EXISTS (SELECT 1 FROM model_aliases a WHERE a.model = c.model_id
                              AND a.tenant_id = c.tenant_id)
           AND NOT EXISTS (SELECT 1 FROM models m WHERE m.base_model = c.model_id
                              AND m.deleted_at IS NULL))
RETURNING c.manifest_key, c.files, c.model_id
""")

# Who begins to start from one of these holds it (``hold_model``) until that is committed, so it is
# either seen by what follows, or sees what came of it.
_LOCK_MODELS = text("SELECT 1 FROM models WHERE job_id = :job ORDER BY id FOR UPDATE")

_GOES_ON = text("""
UPDATE shards SET lost_n = 0, crash_n = 0, error_n = 0, suspect = false WHERE id = :id
""")


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Numbers of one step."""

    step: int
    epoch: float
    """Passes over the data."""
    values: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCheckpoint:
    """A checkpoint whose objects are all stored; ``files`` are those of its manifest, their paths
    relative to its folder."""

    id: str
    step: int
    prefix: str
    manifest_key: str
    manifest_sha256: str
    files: Sequence[ModelFile]
    model_files: Sequence[ModelFile]
    """The servable ones, their paths relative to the model's folder."""
    bytes: int
    model: NewModel
    """The model that it can be asked as; ``model_files`` take the place of its own files."""
    metrics: dict[str, float] = field(default_factory=dict)
    best: bool = False


def report_training(
    connection: Connection,
    session_id: str,
    held: Held,
    *,
    metrics: Sequence[TrainingStep],
    progress: float | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Writes numbers of steps; telling a step again adds to it, and replaces what an earlier
    attempt told. ``detail`` is merged into the job's ``detail["training"]``; with ``STARTED_AT`` it
    says that steps begin. A zombie's numbers are dropped."""
    shard = connection.execute(_HOLD, _identity(session_id, held)).one_or_none()
    if shard is None:
        return
    known, before = connection.execute(_READ_JOB, {"job": shard.job_id}).one()
    training = known["training"] = known.get("training", {}) | (detail or {})
    if detail and STARTED_AT in detail:
        begun = {"step": detail[STARTED_AT], "steps": detail.get("steps")}
        announce(connection, shard.job_id, STARTED, begun)
    if steps := _merged(metrics):
        _write_steps(connection, shard.job_id, held.epoch, steps)
        for item in _worth_telling(steps, before or 0.0, progress):
            data = {"step": item.step, "steps": training.get("steps"), "values": item.values}
            announce(connection, shard.job_id, METRICS, data)
    values = {"job": shard.job_id, "progress": progress, "detail": json.dumps(known)}
    connection.execute(_REPORT, values)


def _write_steps(
    connection: Connection, job_id: str, attempt: int, steps: dict[int, TrainingStep]
) -> None:
    of_attempt = {"job": job_id, "attempt": attempt}
    connection.execute(_UNDONE, of_attempt | {"first": min(steps)})
    listed = {
        "steps": list(steps),
        "epochs": [item.epoch for item in steps.values()],
        "values": [json.dumps(item.values) for item in steps.values()],
    }
    connection.execute(_METRICS, of_attempt | listed)


def _merged(metrics: Sequence[TrainingStep]) -> dict[int, TrainingStep]:
    """One entry a step, in order; JSON knows no NaN, so what is not finite is null."""
    steps: dict[int, TrainingStep] = {}
    for item in sorted(metrics, key=lambda item: item.step):
        values: dict[str, Any] = {
            name: value if math.isfinite(value) else None
            for name, value in item.values.items()
            if _NAME.fullmatch(name)
        }
        if item.step in steps:
            values = steps[item.step].values | values
        steps[item.step] = TrainingStep(item.step, item.epoch, values)
    return steps


def _worth_telling(
    steps: dict[int, TrainingStep], before: float, progress: float | None
) -> list[TrainingStep]:
    """Each evaluation, and the newest step when another hundredth is done: an event for every step
    would be a million of them."""
    told = [item for item in steps.values() if "valid_loss" in item.values]
    newest = list(steps.values())[-1]
    if newest not in told and int((progress or 0.0) * 100) > int(before * 100):
        told.append(newest)
    return told


def add_checkpoint(
    connection: Connection, session_id: str, held: Held, new: NewCheckpoint
) -> list[str] | None:
    """Makes a checkpoint the one to go on from, and its model one to ask for. Losses before it are
    forgiven when it is further than any before. None means that this worker is a zombie.

    Gives the keys of objects that nobody needs any more: of checkpoints beyond the newest two and
    the best. They may be removed once the transaction is committed, and the cleaner does it too.
    """
    shard = connection.execute(_HOLD, _identity(session_id, held)).one_or_none()
    if shard is None:
        count_zombies(connection, [held])
        return None
    # Everything about a job's checkpoints happens under its lock.
    connection.execute(_READ_JOB, {"job": shard.job_id})
    reached = connection.execute(_LAST_STEP, {"job": shard.job_id}).scalar_one()
    of_step = {"job": shard.job_id, "epoch": held.epoch, "step": new.step}
    values = of_step | _checkpoint_values(new) | {"id": held.shard_id, "tenant": shard.tenant_id}
    fresh = connection.execute(_ADD, values).scalar_one()
    if new.best:
        connection.execute(_ONE_BEST, of_step)
    add_model(connection, shard.tenant_id, shard.job_id, new.model, files=new.model_files)
    if new.step > reached:
        connection.execute(_GOES_ON, {"id": held.shard_id})
    if fresh:
        told = {"step": new.step, "checkpoint": new.id, "model": new.model.id}
        announce(connection, shard.job_id, CHECKPOINT, told)
    return _drop_old(connection, of_step, kept=new.model.id)


def _checkpoint_values(new: NewCheckpoint) -> dict[str, Any]:
    finite = {name: value for name, value in new.metrics.items() if math.isfinite(value)}
    return {
        "checkpoint": new.id,
        "prefix": new.prefix,
        "manifest_key": new.manifest_key,
        "manifest_sha256": new.manifest_sha256,
        "files": json.dumps([asdict(file) for file in new.files]),
        "bytes": new.bytes,
        "metrics": json.dumps(finite),
        "best": new.best,
        "model": new.model.id,
    }


def _drop_old(connection: Connection, of_step: dict[str, Any], *, kept: str) -> list[str]:
    connection.execute(_LOCK_MODELS, {"job": of_step["job"]})
    dropped = connection.execute(_DROP, of_step).all()
    keys = {file["key"] for row in dropped for file in row.files}
    keys |= {row.manifest_key for row in dropped}
    models = {row.model_id for row in dropped} - {kept}
    keys |= withdraw_models(connection, of_step["job"], sorted(models))
    return sorted(keys)


def _identity(session_id: str, held: Held) -> dict[str, Any]:
    return {"me": session_id, "id": held.shard_id, "epoch": held.epoch}
