"""Shards of stage ``sweep``: what the trials say is read, the next ones are added, and the best one
is delivered. Nothing is remembered between two claims but what Postgres holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import structlog
from sqlalchemy import Engine

from shared.db.session import autocommit
from shared.db.sweeps import Trial, trials_of
from shared.doorbell import Ringer
from shared.ids import new_file_id, new_tuning_id
from shared.lifecycle import working
from shared.lifecycle.working import NewFile, NewTrial, SweepEnd
from shared.pools import TRAIN
from shared.specs.fine_tuning import FineTuningSpec, seed_of
from shared.specs.sweep_space import Params, axes_of, trial_spec
from shared.specs.sweeps import Sweep
from shared.states import JobState
from shared.storage.base import Store
from shared.storage.keys import training_files_prefix
from worker.tuning.planning import model_name
from worker.upkeep.assembly import Interrupted
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.sweeps_report import FAILED, SweepReport, outcome_of
from worker.upkeep.sweeps_study import NoOptuna, suggest

log = structlog.get_logger()

SWEEP_FAILED = "sweep_failed"


class Sweeps:
    """Runs the ``sweep`` shards of fine-tuning jobs, on the threads of the chores."""

    def __init__(self, database: Engine, store: Store, ends: ChoreEnds, ringer: Ringer) -> None:
        self._database = database
        self._store = store
        self._ends = ends
        self._ringer = ringer

    def run(self, chore: Chore) -> None:
        """Raises Interrupted, and for the chore's ``judge`` whatever else goes wrong."""
        claim = chore.claim
        spec = FineTuningSpec.model_validate_json(claim.spec)
        if spec.sweep is None:
            raise AssertionError("a sweep without what to search")
        with autocommit(self._database) as connection:
            trials = trials_of(connection, claim.job_id)
        done = len(trials) >= spec.sweep.trials and all(trial.ended for trial in trials)
        if done and claim.stop_reason is None:
            self._finish(chore, spec, spec.sweep, trials)
        else:
            self._go_on(chore, spec, spec.sweep, trials)

    # --- the next trials ------------------------------------------------------------------------

    def _go_on(
        self, chore: Chore, spec: FineTuningSpec, sweep: Sweep, trials: Sequence[Trial]
    ) -> None:
        free = min(
            sweep.parallel - sum(not trial.ended for trial in trials),
            sweep.trials - len(trials),
        )
        try:
            stops = chore.claim.stop_reason is not None
            new = [] if stops else next_trials(chore.claim.job_id, spec, sweep, trials, free)
        except NoOptuna as error:
            self._fail(chore, error.code, error.message)
            return
        self._ends.commit(
            chore,
            lambda connection: working.add_trials(
                connection, chore.session_id, chore.claim.held, new, parallel=sweep.parallel
            ),
        )
        if new:
            self._ringer.ring(TRAIN)
            log.info("trials_added", job=chore.claim.job_id, trials=[item.number for item in new])

    # --- the end --------------------------------------------------------------------------------

    def _finish(
        self, chore: Chore, spec: FineTuningSpec, sweep: Sweep, trials: Sequence[Trial]
    ) -> None:
        best = best_of(trials, minimize=sweep.direction == "minimize")
        if best is None or best.model is None:
            self._fail(chore, SWEEP_FAILED, why_none(trials, sweep.metric))
            return
        claim = chore.claim
        name = model_name(spec, claim.tenant_id, claim.job_id)
        report = SweepReport(claim.job_id, name, spec, sweep, trials, best)
        end = SweepEnd(
            best_job_id=best.job_id,
            best_model=best.model,
            model=name,
            best={
                "job": best.job_id,
                "number": best.number,
                "params": dict(best.params),
                "value": best.value,
            },
            files=self._store_files(chore, report),
            trained_tokens=sum(trial.trained_tokens for trial in trials),
            detail={"job": claim.job_id},
        )
        self._ends.commit(
            chore,
            lambda connection: working.finish_sweep(connection, chore.session_id, claim.held, end),
        )
        log.info("sweep_finished", job=claim.job_id, trials=len(trials), best=best.job_id)

    def _store_files(self, chore: Chore, report: SweepReport) -> list[NewFile]:
        """Raises Interrupted, StorageUnavailable or StorageFull."""
        claim, made = chore.claim, []
        prefix = training_files_prefix(claim.tenant_id, claim.job_id, claim.epoch)
        for name, media_type, data in report.files():
            if chore.interrupted.is_set():
                raise Interrupted
            stored = self._store.put_bytes(prefix + name, data, media_type=media_type)
            made.append(NewFile(new_file_id(), f"{claim.job_id}_{name}", stored))
        return made

    def _fail(self, chore: Chore, code: str, message: str) -> None:
        self._ends.commit(
            chore,
            lambda connection: working.fail_training(
                connection, chore.session_id, chore.claim.held, code=code, message=message
            ),
        )
        log.info("sweep_failed", job=chore.claim.job_id, code=code)


def next_trials(
    job_id: str, spec: FineTuningSpec, sweep: Sweep, trials: Sequence[Trial], free: int
) -> list[NewTrial]:
    """Up to ``free`` trials that are to be run besides those that there are. Raises NoOptuna."""
    known, new = list(trials), []
    axes, seed = axes_of(spec, sweep), seed_of(spec, job_id)
    for number in range(len(known) + 1, len(known) + 1 + max(0, free)):
        params = suggest(
            axes,
            known,
            trials=sweep.trials,
            minimize=sweep.direction == "minimize",
            seed=seed,
            number=number,
        )
        body = json.dumps(trial_spec(spec, seed, params))
        new.append(NewTrial(new_tuning_id(), number, params, body))
        known.append(_as_open(new[-1].job_id, number, params))
    return new


def _as_open(job_id: str, number: int, params: Params) -> Trial:
    return Trial(
        job_id=job_id,
        number=number,
        params=params,
        value=None,
        evaluations=(),
        pruned=False,
        ended=False,
        state="queued",
    )


def best_of(trials: Sequence[Trial], *, minimize: bool) -> Trial | None:
    """Of those whose model is still there; the earliest of equals."""
    there = [trial for trial in trials if trial.value is not None and trial.model is not None]
    sign = 1 if minimize else -1
    return min(there, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def why_none(trials: Sequence[Trial], metric: str) -> str:
    """What the tenant is told when there is no best trial: the commonest reason."""
    reasons: Counter[str] = Counter()
    for trial in trials:
        if trial.value is not None:
            reasons["its model was deleted"] += 1
        elif trial.state == JobState.SUCCEEDED:
            reasons[f"its recipe measures no {metric}"] += 1
        elif outcome_of(trial) == FAILED:
            reasons[trial.error_message or trial.error_code or "it failed"] += 1
        else:
            reasons["it was pruned" if trial.pruned else "it was cancelled"] += 1
    why, count = reasons.most_common(1)[0]
    of = "all of them" if count == len(trials) else f"{count} of them"
    return f"none of {len(trials)} trials has a model to deliver; {of}: {why}"
