"""Sweeps over HTTP: at the door, as they go, and what one has to do with its trials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.fine_tuning import FineTuningJob as TheirJob

from api import fine_tuning_objects
from shared.db.models import sync_catalog
from shared.lifecycle import working
from shared.lifecycle.working import Claim, NewSweep
from shared.models_catalog import ModelEntry
from tests.integration.api_case import ApiCase, api_fixture
from tests.integration.sweep_case import SweepPlant
from tests.integration.tuning_case import FOUND

__all__ = ["api_fixture"]

JOBS = "/v1/fine_tuning/jobs"
SPACE = {"learning_rate": {"min": 1e-5, "max": 1e-2, "log": True}}


@pytest.fixture
def plant(api: ApiCase, database_url: str) -> Iterator[SweepPlant]:
    with api.begin() as connection:
        sync_catalog(connection, [ModelEntry(id="writer", engine="text")])
    plant = SweepPlant(database_url)
    yield plant
    plant.close()


def create(api: ApiCase, **sweep: Any) -> dict[str, Any]:
    file = api.upload(b'{"messages": []}\n', purpose="fine-tune").json["id"]
    asked = {"trials": 3, "space": SPACE} | sweep
    reply = api.post(JOBS, {"model": "writer", "training_file": file, "sweep": asked})
    assert reply.status_code == 200, reply.json
    return checked(reply.json)


def checked(shown: dict[str, Any]) -> dict[str, Any]:
    """It is the shape that we document, and one that OpenAI's client takes."""
    fine_tuning_objects.FineTuningJob.model_validate(shown)
    TheirJob.model_validate(shown, strict=True)
    return shown


def look(api: ApiCase, job_id: str) -> dict[str, Any]:
    return checked(api.get(f"{JOBS}/{job_id}").json)


def searching(api: ApiCase, plant: SweepPlant, count: int = 2) -> tuple[str, list[Claim]]:
    """A sweep whose first trials run."""
    job_id = create(api, parallel=count)["id"]
    held = plant.claim_one("up", pools=["upkeep"]).held
    with plant.engine.begin() as connection:
        new = NewSweep(3, "valid_loss", minimize=True, pruning=True)
        assert working.open_training(connection, "up", held, found=FOUND, card=None, sweep=new)
    return job_id, plant.started(job_id, count, parallel=count)


def test_a_sweep_goes_from_its_files_to_its_best_model(api: ApiCase, plant: SweepPlant) -> None:
    job_id, (first, second) = searching(api, plant)
    shown = look(api, job_id)
    assert (shown["status"], shown["parent_id"], shown["progress"]) == ("running", None, 0)
    assert shown["sweep"] == {
        "trials": 3,
        "space": {"learning_rate": SPACE["learning_rate"]},
        "metric": "valid_loss",
        "direction": "minimize",
        "pruning": True,
        "parallel": 2,
        "finished": 0,
        "pruned": 0,
        "failed": 0,
        "running": 2,
        "best": None,
    }
    trial = look(api, first.job_id)
    assert (trial["status"], trial["parent_id"]) == ("running", job_id)
    assert trial["sweep"] == {
        "number": 1,
        "params": {"learning_rate": 0.001},
        "value": None,
        "pruned": False,
    }
    plant.end(first, 0.4)
    plant.end(second, 0.2)
    plant.collect()
    shown = look(api, job_id)["sweep"]
    assert (shown["finished"], shown["running"]) == (2, 0)
    assert (shown["best"]["job"], shown["best"]["value"]) == (second.job_id, 0.2)
    assert look(api, second.job_id)["sweep"]["value"] == 0.2
    plant.add(plant.claim_sweep(), 1, parallel=2)
    plant.dispatch("train")
    (third,) = plant.claim("trainer", pools=["train"])
    plant.end(third, 0.6)
    plant.collect()
    plant.finish_sweep(plant.claim_sweep())
    done = look(api, job_id)
    assert (done["status"], done["progress"]) == ("succeeded", 1)
    assert done["fine_tuned_model"].startswith("ft:writer:")
    model = api.get(f"/v1/models/{done['fine_tuned_model']}").json
    assert model["pressrun"]["job_id"] == job_id
    events = api.get(f"{JOBS}/{job_id}/events?limit=100").json["data"]
    told = [event["message"] for event in events]
    assert "trial 2: valid_loss=0.2" in told
    created = api.get(f"{JOBS}/{first.job_id}/events?limit=100").json["data"][-1]
    assert created["message"] == f"Trial 1 of {job_id} waits for a worker"


def test_before_its_data_are_judged_it_has_no_trials(api: ApiCase, plant: SweepPlant) -> None:
    shown = create(api, metric="bleu", direction="maximize", pruning=False)
    assert shown["status"] == "validating_files"
    assert (shown["sweep"]["metric"], shown["sweep"]["best"]) == ("bleu", None)
    assert (shown["sweep"]["pruning"], shown["sweep"]["running"]) == (False, 0)


def test_a_pruned_trial_is_cancelled_and_says_so(api: ApiCase, plant: SweepPlant) -> None:
    job_id, (first, _) = searching(api, plant)
    plant.prune(first.job_id)
    plant.give_back(first)
    plant.collect()
    shown = look(api, first.job_id)
    assert (shown["status"], shown["sweep"]["pruned"]) == ("cancelled", True)
    assert look(api, job_id)["sweep"]["pruned"] == 1


def test_lists_show_all_or_hide_trials(api: ApiCase, plant: SweepPlant) -> None:
    job_id, claims = searching(api, plant)
    trials = [claim.job_id for claim in claims]

    def listed(query: str) -> list[str]:
        return [job["id"] for job in api.get(f"{JOBS}{query}").json["data"]]

    assert listed("") == [*sorted(trials, reverse=True), job_id]
    assert listed("?parent=none") == [job_id]
    assert listed(f"?parent={job_id}") == sorted(trials, reverse=True)
    assert listed(f"?parent={job_id}&limit=1") == sorted(trials, reverse=True)[:1]
    assert listed("?parent=ftjob-nobody") == []
    refused = api.get(f"{JOBS}?parent=%00")
    assert (refused.status_code, refused.json["error"]["param"]) == (400, "parent")


def test_what_is_asked_of_a_sweep_is_asked_of_its_trials(api: ApiCase, plant: SweepPlant) -> None:
    job_id, claims = searching(api, plant)
    first, second = (claim.job_id for claim in claims)
    assert checked(api.post(f"{JOBS}/{job_id}/pause").json)["paused"]
    assert look(api, first)["paused"]
    refused = api.post(f"{JOBS}/{first}/resume")
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "conflict")
    api.bell.rung.clear()
    assert not checked(api.post(f"{JOBS}/{job_id}/resume").json)["paused"]
    assert api.bell.rung == ["train", "upkeep"]
    assert not look(api, second)["paused"]
    api.post(f"{JOBS}/{first}/pause")
    assert not look(api, job_id)["paused"]
    assert not checked(api.post(f"{JOBS}/{first}/resume").json)["paused"]
    shown = checked(api.post(f"{JOBS}/{job_id}/cancel").json)
    assert (shown["status"], shown["stopping"]) == ("running", True)
    assert look(api, second)["stopping"]
    for claim in claims:
        plant.give_back(claim)
    plant.collect()
    plant.sweep()
    assert look(api, job_id)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("sweep", "param"),
    [
        ({"space": {"nothing": {"choices": [1]}}}, "sweep.space.nothing"),
        ({"space": {"learning_rate": {"min": 1, "max": 0.1}}}, "sweep.space.learning_rate.max"),
        ({"space": {"batch_size": {"choices": [1, 2]}}}, "sweep.trials"),
        ({"trials": 65}, "sweep.trials"),
        ({"space": []}, "sweep.space"),
        ("all", "sweep"),
    ],
)
def test_at_the_door_a_bad_sweep_is_told_by_its_field(
    api: ApiCase, plant: SweepPlant, sweep: Any, param: str
) -> None:
    asked = {"trials": 3, "space": SPACE} | sweep if isinstance(sweep, dict) else sweep
    body = {"model": "writer", "training_file": "file-a", "sweep": asked}
    reply = api.post(JOBS, body)
    assert reply.status_code == 400
    assert (reply.json["error"]["code"], reply.json["error"]["param"]) == ("invalid_request", param)
