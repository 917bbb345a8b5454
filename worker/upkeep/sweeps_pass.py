"""The periodic pass about sweeps: trials that have ended are counted, what was asked of a sweep is
asked of its trials, and trials that promise nothing are stopped. Any number of processes."""

from __future__ import annotations

from collections.abc import Collection

import structlog
from sqlalchemy import Engine

from shared.db.session import autocommit
from shared.db.sweeps import Prunable, evaluations_since, finished_evaluations, prunable_sweeps
from shared.doorbell import Ringer
from shared.lifecycle import working
from shared.pools import UPKEEP
from worker.upkeep.sweeps_study import NoOptuna, hopeless, judged_after

log = structlog.get_logger()

STEPS_AT_ONCE = 10_000
"""Rows of a training's numbers that one pass reads."""


class SweepPass:
    """Used by the thread of the passes."""

    def __init__(self, database: Engine, ringer: Ringer) -> None:
        self._database = database
        self._ringer = ringer
        self._heard: dict[str, Heard] = {}

    def run(self) -> None:
        """Raises SQLAlchemyError."""
        with self._database.begin() as connection:
            ended = working.collect_trials(connection)
        if ended:
            self._ringer.ring(UPKEEP)
        with self._database.begin() as connection:
            working.stop_trials(connection)
        with self._database.begin() as connection:
            working.pause_trials(connection)
        self._prune()

    def _prune(self) -> None:
        with autocommit(self._database) as connection:
            sweeps = prunable_sweeps(connection)
        self._forget({job_id for sweep in sweeps for job_id in sweep.running})
        for sweep in sweeps:
            with autocommit(self._database) as connection:
                finished = finished_evaluations(connection, sweep.parent_id)
            if len(finished) >= judged_after(sweep.trials):
                for job_id in sweep.running:
                    self._judge(sweep, job_id, finished)

    def _judge(self, sweep: Prunable, job_id: str, finished: list[list[float]]) -> None:
        heard = self._heard.setdefault(job_id, Heard())
        if not heard.listen(self._database, job_id, sweep.metric):
            return
        try:
            why = hopeless(heard.values, finished, trials=sweep.trials, minimize=sweep.minimize)
        except NoOptuna as error:
            log.warning("pruning_unavailable", job=sweep.parent_id, code=error.code)
            return
        if why is None:
            return
        with self._database.begin() as connection:
            pruned = working.prune_trial(connection, job_id, f"{sweep.metric}: {why}")
        if pruned:
            log.info("trial_pruned", job=job_id, sweep=sweep.parent_id, at=len(heard.values))

    def _forget(self, running: Collection[str]) -> None:
        self._heard = {job: heard for job, heard in self._heard.items() if job in running}


class Heard:
    """A running trial's evaluations. Only the numbers of new steps are read; the last one's once
    more, since an evaluation is told after the loss of its step."""

    def __init__(self) -> None:
        self._by_step: dict[int, float] = {}
        self._step = 0

    @property
    def values(self) -> list[float]:
        return [self._by_step[step] for step in sorted(self._by_step)]

    def listen(self, database: Engine, job_id: str, metric: str) -> bool:
        """Whether there are new ones."""
        before = len(self._by_step)
        with autocommit(database) as connection:
            rows = evaluations_since(
                connection, job_id, metric=metric, step=self._step, limit=STEPS_AT_ONCE
            )
        for step, value in rows:
            self._step = step
            if value is not None:
                self._by_step[step] = value
        return len(self._by_step) > before
