"""The search itself: real suggestions, a study made anew at every claim, reports, pruning."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.doorbell import Ringer
from shared.lifecycle.working import Claim, TrainingStep
from shared.states import JobState
from tests.integration.protocol import TENANT
from tests.integration.search_case import Search
from worker.upkeep import sweeps_study
from worker.upkeep.sweeps_pass import SweepPass


@pytest.fixture
def search(database_url: str, tmp_path: Path) -> Iterator[Search]:
    search = Search(database_url, tmp_path / "a store")
    yield search
    search.close()


def distance(params: dict[str, Any]) -> float:
    """Best at a rate of 0.001 and batches of 4."""
    return abs(math.log10(params["learning_rate"]) + 3) + (params["batch_size"] != 4) + 0.5


def test_a_search_ends_with_the_best_model_and_what_it_tried(search: Search) -> None:
    job_id = search.submit(parallel=2)
    search.run(job_id, distance)
    job, trials = search.job(job_id), search.trials(job_id)
    assert job.state == JobState.SUCCEEDED
    assert len(trials) == 4
    best = min(trials, key=lambda trial: distance(dict(trial.params)))
    assert job.result["best"]["job"] == best.job_id
    assert job.result["fine_tuned_model"] == f"ft:writer:{TENANT}:s:{job_id[-8:]}"
    files = {
        row.filename.removeprefix(f"{job_id}_"): b"".join(search.store.read(row.storage_key))
        for row in search.sql(
            "SELECT filename, storage_key FROM files WHERE id = ANY(:ids)",
            ids=job.result["result_files"],
        )
    }
    assert set(files) == {"report.md", "report.json", "trials.csv", "trials.png"}
    rows = list(csv.DictReader(io.StringIO(files["trials.csv"].decode())))
    assert [row["job"] for row in rows] == [trial.job_id for trial in trials]
    assert [float(row["value"]) for row in rows] == [trial.value for trial in trials]
    assert [int(row["lora.rank"]) for row in rows] == [t.params["lora.rank"] for t in trials]
    report = json.loads(files["report.json"])
    assert report["best"]["job"] == best.job_id
    assert report["best"]["result_files"] == list(best.result_files)
    assert report["outcomes"] == {"finished": 4, "pruned": 0, "failed": 0, "cancelled": 0}
    assert f"| **{best.number}** | `{best.job_id}` | finished |" in files["report.md"].decode()
    assert files["trials.png"].startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", files["trials.png"][16:24]) == (1200, 720)


def test_a_trials_job_has_its_parameters_and_what_all_have(search: Search) -> None:
    job_id = search.submit()
    search.decide()
    (claim,) = search.train()
    spec, (params,) = json.loads(claim.spec), search.params(job_id)
    assert spec["method"]["supervised"] == {
        "hyperparameters": {
            "n_epochs": 2,
            "learning_rate": params["learning_rate"],
            "batch_size": params["batch_size"],
        },
        "lora": {"rank": params["lora.rank"]},
    }
    assert (spec["seed"], spec["suffix"]) == (7, "s")
    assert "sweep" not in spec


def test_whatever_dies_the_same_ends_lead_to_the_same_trials(search: Search) -> None:
    """What was committed is all that counts: each deciding process dies after its claim, and
    another one takes over."""
    quiet = search.submit(trials=6)
    search.run(quiet, distance)
    troubled = search.submit(trials=6)
    for number in range(7):
        for name in (f"dies{number}", f"lives{number}"):
            search.session(name, pools=["upkeep"])
        search.dispatch("upkeep")
        assert len(search.claim(f"dies{number}", pools=["upkeep"])) == 1
        search.lose(f"dies{number}")
        search.decide(f"lives{number}")
        for claim in search.train():
            search.end(claim, distance(json.loads(claim.detail)["sweep"]["params"]))
        search.collect()
    assert search.job(troubled).state == JobState.SUCCEEDED
    assert search.params(troubled) == search.params(quiet)
    assert len(search.params(quiet)) == 6


def test_a_grid_is_tried_once_each(search: Search) -> None:
    space = {"batch_size": {"choices": [2, 4]}, "n_epochs": {"min": 1, "max": 3}}
    job_id = search.submit(trials=6, parallel=3, space=space)
    search.run(job_id, lambda params: params["batch_size"] * params["n_epochs"])
    tried = [(p["batch_size"], p["n_epochs"]) for p in search.params(job_id)]
    assert sorted(tried) == [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2), (4, 3)]
    assert search.job(job_id).result["best"]["params"] == {"batch_size": 2, "n_epochs": 1}


def test_the_highest_is_best_when_that_is_asked(search: Search) -> None:
    job_id = search.submit(direction="maximize")
    search.run(job_id, distance)
    values = [trial.value or 0 for trial in search.trials(job_id)]
    assert search.job(job_id).result["best"]["value"] == max(values)


def test_a_search_without_any_good_trial_says_why(search: Search) -> None:
    job_id = search.submit(trials=3)
    for place in range(3):
        search.decide()
        (claim,) = search.train()
        if place == 1:
            search.stop(claim.job_id)
            search.give_back(claim)
        else:
            search.fail(claim)
        search.collect()
    search.decide()
    job = search.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "sweep_failed")
    assert job.error_message == (
        "none of 3 trials has a model to deliver; 2 of them: it can't be done"
    )


def test_without_optuna_a_sweep_fails_clearly(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    job_id = search.submit()
    search.decide()
    job = search.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "sweeps_unavailable")
    assert "Optuna" in job.error_message


# --- pruning ------------------------------------------------------------------------------------


def pruning(search: Search) -> tuple[str, list[Claim]]:
    """A search with two finished trials, whose losses fell to 1.0, and two that run."""
    job_id = search.submit(trials=4, parallel=4)
    search.decide()
    claims = search.train()
    for claim in claims[:2]:
        told = [TrainingStep(step, 1.0, {"valid_loss": 3 - step / 10}) for step in (10, 15, 20)]
        search.report(claim.held, *told)
        search.end(claim, 1.0)
    search.collect()
    return job_id, claims[2:]


def tell(search: Search, claim: Claim, step: int, **values: float) -> None:
    search.report(claim.held, TrainingStep(step, 1.0, values))


def test_a_trial_that_is_behind_is_pruned_by_any_process(search: Search) -> None:
    job_id, (good, bad) = pruning(search)
    one, other = (SweepPass(search.engine, Ringer("")) for _ in range(2))
    tell(search, good, 7, valid_loss=9.0)
    tell(search, bad, 7, valid_loss=9.0)
    one.run()
    assert search.job(bad.job_id).stop_reason is None  # one evaluation says little
    tell(search, good, 14, train_loss=0.1)
    tell(search, bad, 14, train_loss=0.1)
    one.run()
    tell(search, good, 14, valid_loss=1.2)  # told after the loss of the same step
    tell(search, bad, 14, valid_loss=8.0)
    for passing in (one, other, one):
        passing.run()
    assert search.job(good.job_id).stop_reason is None
    assert search.job(bad.job_id).stop_reason == "cancelled"
    (note,) = search.data_of_events(bad.job_id, "fine_tune.note")
    assert note["message"] == (
        "pruned: valid_loss: after 2 evaluations its best is 8; the median of 2 finished trials "
        "was 1.5"
    )
    search.give_back(bad)
    one.run()
    assert [trial.pruned for trial in search.trials(job_id)] == [False, False, False, True]


def test_nobody_is_pruned_before_enough_have_finished(search: Search) -> None:
    search.submit(trials=4, parallel=4)
    search.decide()
    first, second, *_ = search.train()
    tell(search, first, 10, valid_loss=1.0)
    tell(search, first, 20, valid_loss=1.0)
    search.end(first, 1.0)
    tell(search, second, 10, valid_loss=9.0)
    tell(search, second, 20, valid_loss=9.0)
    SweepPass(search.engine, Ringer("")).run()
    assert search.job(second.job_id).stop_reason is None
    assert sweeps_study.judged_after(4) == 2
