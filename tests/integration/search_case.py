"""Sweeps that are really searched: upkeep's own chore, and trainers that end as they are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.doorbell import Ringer
from shared.lifecycle import working
from shared.lifecycle.working import Claim, NewSweep
from shared.storage.local import LocalStore
from tests.integration.sweep_case import SweepPlant
from tests.integration.training_case import OpenSession
from tests.integration.tuning_case import FOUND
from worker.upkeep.chore import Chore, ChoreEnds
from worker.upkeep.sweeps import Sweeps

SPACE = {
    "learning_rate": {"min": 1e-5, "max": 1e-2, "log": True},
    "batch_size": {"choices": [2, 4, 8]},
    "lora.rank": {"min": 4, "max": 16, "step": 4},
}


class Search(SweepPlant):
    """Upkeep that searches, and trainers that end as they are told."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url)
        self.store = LocalStore(folder, "a signing key of some length")

    def submit(self, *, spec: dict[str, Any] | None = None, **fields: Any) -> str:
        """A sweep whose data were found good; ``spec`` is the rest of the job's body."""
        asked = {"trials": 4, "space": SPACE} | fields
        method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
        job_id = self.fine_tune(
            sweep=asked, **({"seed": 7, "method": method, "suffix": "s"} | (spec or {}))
        )
        new = NewSweep(
            asked["trials"],
            asked.get("metric", "valid_loss"),
            asked.get("direction", "minimize") == "minimize",
            pruning=True,
        )
        with self.engine.begin() as connection:
            held = self.claim_one("up", pools=["upkeep"]).held
            assert working.open_training(connection, "up", held, found=FOUND, card=None, sweep=new)
        return job_id

    def decide(self, session: str = "up") -> Claim:
        """Claims a search and runs its chore, in whatever upkeep process."""
        self.dispatch("upkeep")
        (claim,) = self.claim(session, pools=["upkeep"], max_shards=1)
        ends = ChoreEnds(self.engine, OpenSession(session), Ringer(""))  # type: ignore[arg-type]
        Sweeps(self.engine, self.store, ends, Ringer("")).run(Chore(claim, session))
        return claim

    def train(self) -> list[Claim]:
        self.dispatch("train")
        return self.claim("trainer", pools=["train"])

    def run(self, job_id: str, value: Callable[[dict[str, Any]], float]) -> None:
        """To its end, each trial worth what ``value`` makes of its parameters."""
        while self.job(job_id).state in ("queued", "running"):
            self.decide()
            for claim in self.train():
                params = json.loads(claim.detail)["sweep"]["params"]
                self.end(claim, value(params), step=10)
            self.collect()

    def params(self, job_id: str) -> list[dict[str, Any]]:
        return [dict(trial.params) for trial in self.trials(job_id)]
