"""The first stages of a sweep by upkeep's own code: its data judged, its search begun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.states import JobState
from tests.integration.protocol import Plant
from tests.integration.test_tuning_data import Upkeep
from tests.unit.worker.tuning.data_case import chats, jsonl

SWEEP = {
    "trials": 4,
    "parallel": 2,
    "metric": "valid_loss",
    "direction": "minimize",
    "pruning": False,
    "space": {"n_epochs": {"choices": [1, 2, 3, 4]}},
}


@pytest.fixture
def upkeep(database_url: str, tmp_path: Path) -> Iterator[Upkeep]:
    plant = Plant(database_url)
    upkeep = Upkeep(plant, tmp_path)
    yield upkeep
    upkeep.chores.close()
    plant.close()


def submit(upkeep: Upkeep, **fields: Any) -> str:
    hyperparameters = {"method": {"type": "supervised", "supervised": {"hyperparameters": {}}}}
    fields = {"sweep": SWEEP, "seed": 5} | hyperparameters | fields
    return upkeep.submit("supervised", jsonl(chats(20)), **fields)


def test_good_data_open_the_search_and_upkeep_begins_it(upkeep: Upkeep) -> None:
    plant, job_id = upkeep.plant, submit(upkeep)
    assert upkeep.attempt().stage == "validate"
    (row,) = plant.sql("SELECT * FROM sweeps")
    assert (row.job_id, row.trials, row.metric) == (job_id, 4, "valid_loss")
    assert (row.minimize, row.pruning) == (True, False)
    plant.dispatch("upkeep")
    assert upkeep.attempt().stage == "sweep"
    trials = plant.sql("SELECT j.* FROM trials t JOIN jobs j ON j.id = t.job_id ORDER BY t.number")
    card = plant.job(job_id).detail["card_file_id"]
    assert [(trial.state, trial.stage) for trial in trials] == [("queued", "train")] * 2
    assert {trial.detail["card_file_id"] for trial in trials} == {card}
    assert {trial.spec["seed"] for trial in trials} == {5}
    assert plant.dispatch("train") == 2


def test_a_dry_run_estimates_all_trials_together(upkeep: Upkeep) -> None:
    single = upkeep.submit("supervised", jsonl(chats(20)), dry_run=True)
    upkeep.attempt()
    job_id = submit(upkeep, dry_run=True)
    upkeep.attempt()
    job = upkeep.plant.job(job_id)
    one = upkeep.plant.job(single).result["estimate"]["estimate"]
    found = job.result["estimate"]["estimate"]
    assert job.state == JobState.SUCCEEDED
    assert found["trials"] == 4
    epochs = found["examples_seen"] / (one["examples_seen"] / one["n_epochs"])
    assert 4 <= epochs <= 16
    assert epochs == int(epochs)
    assert found["trained_tokens"] == pytest.approx(
        one["trained_tokens"] / one["n_epochs"] * epochs, abs=4
    )
    assert found["cost"] == pytest.approx(found["trained_tokens"] * 3 / 1e6, abs=1e-4)
    assert found["memory_bytes"] == one["memory_bytes"]
    assert found["wall_seconds"] == -(-found["seconds"] // 2)
    assert "drawn by the seed" in found["computed"]["trials"]
    assert upkeep.plant.sql("SELECT * FROM trials") == []
