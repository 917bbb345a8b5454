"""A sweep in a real plant: upkeep is killed in the middle, and nothing is tried twice or lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.training_case import rows
from tests.plant import FAST, Plant, plant, wait_until

QUICK_TO_JUDGE = {
    "HEARTBEAT_SECONDS": "0.3",
    "SESSION_TTL_SECONDS": "1.5",
    "POLL_SECONDS": "0.3",
    "UPKEEP_SECONDS": "0.1",
}
TRIALS, PARALLEL = 6, 2
PATIENCE_SECONDS = 120.0
JOBS = "/v1/fine_tuning/jobs"
SPACE = {
    "max_steps": {"min": 5, "max": 40, "step": 5},
    "batch_size": {"choices": [1, 2]},
}
"""The fake recipe comes nearer to its data with every step: these are what its loss depends on."""


@pytest.fixture
def running(tmp_path: Path, database_url: str) -> Iterator[Plant]:
    with plant(tmp_path / "a plant", database_url, models=[FAST], settings=QUICK_TO_JUDGE) as made:
        made.start(workers=0)
        for number in range(PARALLEL):
            made.start_worker(f"trainer-{number}", "train")
        yield made


def submit(running: Plant, **sweep: Any) -> str:
    file = running.client().files.create(
        file=("train.jsonl", rows(12, "[[seconds 0.02]]")), purpose="fine-tune"
    )
    body = {
        "model": "fake",
        "training_file": file.id,
        "suffix": "found",
        "seed": 3,
        "checkpoints": {"every_steps": 5},
        "hyperparameters": {"n_epochs": 50},
        "sweep": {"trials": TRIALS, "space": SPACE, "parallel": PARALLEL} | sweep,
    }
    with running.http() as http:
        reply = http.post(JOBS, json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def look(running: Plant, job_id: str) -> dict[str, Any]:
    with running.http() as http:
        return dict(http.get(f"{JOBS}/{job_id}").json())


def trials_of(running: Plant, job_id: str) -> list[dict[str, Any]]:
    with running.http() as http:
        found = http.get(JOBS, params={"parent": job_id, "limit": 100}).json()["data"]
    return sorted(found, key=lambda trial: trial["sweep"]["number"])


def wait_finished(running: Plant, job_id: str, least: int) -> None:
    def enough() -> bool:
        sweep = look(running, job_id)["sweep"]
        return bool(sweep["finished"] + sweep["pruned"] + sweep["failed"] >= least)

    wait_until(enough, PATIENCE_SECONDS, running.processes["upkeep"].log)


def wait_ended(running: Plant, job_id: str) -> dict[str, Any]:
    wait_until(
        lambda: look(running, job_id)["status"] in {"succeeded", "failed", "cancelled"},
        PATIENCE_SECONDS,
        running.processes["upkeep"].log,
    )
    return look(running, job_id)


@pytest.mark.slow
def test_killing_upkeep_in_the_middle_repeats_and_loses_no_trial(running: Plant) -> None:
    job_id = submit(running, pruning=False)
    for finished in (1, 3):
        wait_finished(running, job_id, finished)
        running.processes["upkeep"].kill()
        running.restart("upkeep")
    done, trials = wait_ended(running, job_id), trials_of(running, job_id)

    assert done["status"] == "succeeded", done["error"]
    assert [trial["sweep"]["number"] for trial in trials] == list(range(1, TRIALS + 1))
    assert {trial["status"] for trial in trials} == {"succeeded"}
    assert len({str(trial["sweep"]["params"]) for trial in trials}) == TRIALS
    best = min(trials, key=lambda trial: (trial["sweep"]["value"], trial["sweep"]["number"]))
    assert done["sweep"]["best"]["job"] == best["id"]
    assert done["sweep"]["finished"] == TRIALS

    name = done["fine_tuned_model"]
    assert name.endswith(f":found:{job_id[-8:]}")
    files = "SELECT files FROM models WHERE id = :id"
    promoted = running.scalar(files, id=name)
    assert promoted == running.scalar(files, id=best["fine_tuned_model"])
    made = running.client().files.list(purpose="fine-tune-results")  # type: ignore[arg-type]
    names = {file.filename for file in made if file.id in done["result_files"]}
    assert {f"{job_id}_{part}" for part in ("report.md", "trials.csv", "trials.png")} <= names
    report = running.client().files.content(
        next(file.id for file in made if file.filename == f"{job_id}_trials.csv")
    )
    assert len(report.text.splitlines()) == 1 + TRIALS


def test_cancelling_a_sweep_ends_its_trainings(running: Plant) -> None:
    job_id = submit(running, space={"max_steps": {"min": 10_000, "max": 20_000}})
    wait_until(
        lambda: [trial["status"] for trial in trials_of(running, job_id)] == ["running"] * PARALLEL,
        PATIENCE_SECONDS,
    )
    with running.http() as http:
        assert http.post(f"{JOBS}/{job_id}/cancel").status_code == 200
    assert wait_ended(running, job_id)["status"] == "cancelled"
    assert {trial["status"] for trial in trials_of(running, job_id)} == {"cancelled"}
