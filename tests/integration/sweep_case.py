"""A plant with sweeps, and short names for what their upkeep does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from shared.db.sweeps import Trial, trials_of
from shared.ids import new_file_id, new_tuning_id
from shared.lifecycle import working
from shared.lifecycle.working import Claim, NewFile, NewSweep, NewTrial, ReleaseReason, SweepEnd
from shared.storage.base import StoredObject
from tests.integration.protocol import TENANT
from tests.integration.tuning_case import FOUND, TuningPlant, training_end

SPACE = {"learning_rate": {"min": 1e-5, "max": 1e-2, "log": True}}
TRIALS = 3


class SweepPlant(TuningPlant):
    """Every call is its own transaction."""

    def new_sweep(
        self,
        *,
        trials: int = TRIALS,
        parallel: int = 1,
        metric: str = "valid_loss",
        minimize: bool = True,
        pruning: bool = True,
        tenant: str = TENANT,
    ) -> str:
        """A job whose data were found good: its search is ready to be claimed."""
        asked = {"trials": trials, "parallel": parallel, "metric": metric, "space": SPACE}
        job_id = self.fine_tune(tenant, sweep=asked, seed=7)
        with self.engine.begin() as connection:
            assert working.open_training(
                connection,
                "up",
                self.claim_one("up", pools=["upkeep"]).held,
                found=FOUND,
                card=None,
                sweep=NewSweep(trials, metric, minimize, pruning),
            )
        return job_id

    def claim_sweep(self, session: str = "up") -> Claim:
        self.dispatch("upkeep")
        return self.claim_one(session, pools=["upkeep"])

    def waits(self, job_id: str) -> bool:
        """Whether the search waits for something, so that nobody can claim it."""
        self.dispatch("upkeep")
        shard = self.search(job_id)
        return (shard.state, shard.blocked_n) == ("queued", 1)

    def search(self, job_id: str) -> Row[Any]:
        """The shard of stage ``sweep``."""
        (shard,) = [shard for shard in self.shards(job_id) if shard.stage == "sweep"]
        return shard

    def add(
        self, claim: Claim, new: int | Sequence[NewTrial], *, parallel: int = 1, by: str = "up"
    ) -> bool:
        if isinstance(new, int):
            new = self.new_trials(claim.job_id, new)
        with self.engine.begin() as connection:
            return working.add_trials(connection, by, claim.held, new, parallel=parallel)

    def new_trials(self, parent_id: str, count: int) -> list[NewTrial]:
        first = len(self.trials(parent_id)) + 1
        return [
            NewTrial(
                new_tuning_id(),
                number,
                {"learning_rate": number / 1000},
                json.dumps({"model": "writer", "training_file": "file-x", "seed": 7}),
            )
            for number in range(first, first + count)
        ]

    def trials(self, parent_id: str) -> list[Trial]:
        with self.connection() as connection:
            return trials_of(connection, parent_id)

    def started(self, job_id: str, count: int = 1, *, parallel: int = 1) -> list[Claim]:
        """Trials of the search, claimed by the trainer, in the order of their numbers."""
        assert self.add(self.claim_sweep(), count, parallel=parallel)
        self.dispatch("train")
        return self.claim("trainer", pools=["train"])

    def end(self, claim: Claim, value: float = 0.5, **fields: Any) -> None:
        metrics = {"after": {"valid_loss": value}}
        assert self.finish_training(claim, training_end(claim, metrics=metrics, **fields))

    def collect(self) -> int:
        with self.engine.begin() as connection:
            return working.collect_trials(connection)

    def carry_over(self) -> tuple[int, int]:
        """(trials stopped, trials paused) by the pass, of any sweep."""
        with self.engine.begin() as connection:
            return working.stop_trials(connection), working.pause_trials(connection)

    def prune(self, job_id: str) -> bool:
        with self.engine.begin() as connection:
            return working.prune_trial(connection, job_id, "it is behind")

    def finish_sweep(self, claim: Claim, end: SweepEnd | None = None, *, by: str = "up") -> bool:
        made = end or self.sweep_end(claim)
        with self.engine.begin() as connection:
            return working.finish_sweep(connection, by, claim.held, made)

    def sweep_end(self, claim: Claim) -> SweepEnd:
        found = [trial for trial in self.trials(claim.job_id) if trial.value is not None]
        best = min(found, key=lambda trial: (trial.value, trial.number))
        key = f"t/{claim.tenant_id}/j/{claim.job_id}/r/e{claim.epoch}/report.md"
        return SweepEnd(
            best_job_id=best.job_id,
            best_model=f"ft:writer:{claim.tenant_id}::{best.job_id[-8:]}",
            model=f"ft:writer:{claim.tenant_id}::{claim.job_id[-8:]}",
            best={
                "job": best.job_id,
                "number": best.number,
                "params": dict(best.params),
                "value": best.value,
            },
            files=[NewFile(new_file_id(), "report.md", StoredObject(key, "e" * 64, 5))],
            trained_tokens=sum(trial.trained_tokens for trial in found),
        )

    def fail(self, claim: Claim, session: str = "trainer") -> bool:
        with self.engine.begin() as connection:
            return working.fail_training(
                connection, session, claim.held, code="bad", message="it can't be done"
            )

    def give_back(self, claim: Claim, session: str = "trainer") -> None:
        self.release(session, claim.held, ReleaseReason.PREEMPTED)
