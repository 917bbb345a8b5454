"""A Generation over engine children that tests control."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from shared.db.models import Model
from tests.unit.worker.claims import CHAT, make_claim, make_rows
from tests.unit.worker.fake_pool import FakeChild, FakeCommits, FakePool
from worker.execution import ShardRun
from worker.generation import Generation
from worker.spool import Spool


class Bench:
    """A Generation with everything around it faked, time included."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spool: Spool) -> None:
        self.pool, self.commits = FakePool(spool), FakeCommits()
        self.models_down = False
        self.known: dict[str, Model] = {}
        """Models that are not of the fake engine."""
        self.local: dict[str, Path] = {}
        """Where files of the store's models are on this machine, by model."""
        self.now = 1_000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("worker.watchdog.time", clock)
        monkeypatch.setattr("worker.placement.time", clock)
        monkeypatch.setattr("worker.stopping.time", clock)
        engines: Any = self.pool
        commits: Any = self.commits
        self.generation = Generation(
            engines,
            commits,
            self._model,
            self,
            spool,
            idle_engine_seconds=60.0,
            load_engine_seconds=600.0,
        )

    def _model(self, model_id: str) -> Model | None:
        if self.models_down:
            raise OperationalError("SELECT", {}, Exception("down"))
        if model_id == "gone":
            return None
        if model_id in self.known:
            return self.known[model_id]
        return Model(model_id, "text", "fake", "", [CHAT], {}, "us", 0)

    def path(self, model: Model) -> Path | None:
        """As ``worker.model_files.ModelFiles``."""
        return self.local.get(model.id)

    def batch(
        self, shard_id: int = 1, rows: int = 3, *, model: str = "m", **fields: Any
    ) -> ShardRun:
        claim = make_claim(shard_id, kind="batch", row_count=rows, **fields)
        return self._begin(ShardRun(claim, "w1", make_rows(rows, model=model)))

    def single(self, shard_id: int = 1, *, model: str = "m", **fields: Any) -> ShardRun:
        claim = make_claim(shard_id, model=model, **fields)
        return self._begin(ShardRun(claim, "w1", make_rows(1, model=model, batch=False)))

    def _begin(self, run: ShardRun) -> ShardRun:
        self.generation.begin(run)
        return run

    @property
    def child(self) -> FakeChild:
        return self.pool.child()

    @property
    def suspect_child(self) -> FakeChild:
        return self.pool.child(quarantine=True)

    def crash(self, *, quarantine: bool = False) -> None:
        self.pool.child(quarantine=quarantine).die()
        self.generation.receive()

    def ends(self) -> list[tuple[str, int, Any]]:
        return [(what, run.held.shard_id, reason) for what, run, reason, _ in self.commits.ends]


def error_codes(run: ShardRun) -> dict[str, str]:
    """Of rows without a response, by custom_id."""
    parsed = [json.loads(line) for line in run._errors]
    return {line["custom_id"]: line["error"]["code"] for line in parsed if line["error"]}
