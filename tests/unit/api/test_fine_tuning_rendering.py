"""Fine-tuning jobs and events as tenants see them, held against their documented shapes."""

from __future__ import annotations

from typing import Any

import pytest

from api import fine_tuning_objects, fine_tuning_rendering
from shared.db.events import EventRow
from shared.db.jobs import JobRow
from shared.db.tuning import MetricsRow, Tuning
from tests.unit.api.test_rendering import CREATED, a_row

SPEC: dict[str, Any] = {"model": "writer", "training_file": "file-1", "seed": 3}


def a_tuning(**changed: Any) -> Tuning:
    values: dict[str, Any] = {
        "spec": SPEC,
        "detail": {},
        "result": None,
        "validation_file_id": None,
        "paused_at": None,
        "recent": [],
    }
    return Tuning(**values | changed)


def a_job(**changed: Any) -> JobRow:
    values = {"id": "ftjob-1", "kind": "fine_tune", "batch_spec": None, "rows_total": 1}
    return a_row(**values | {"expires_at": None} | changed)


def shown(row: JobRow, **changed: Any) -> dict[str, Any]:
    job = fine_tuning_rendering.job(row, a_tuning(**changed), "ten_1")
    fine_tuning_objects.FineTuningJob.model_validate(job)
    return job


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"stage": "validate"}, "validating_files"),
        ({"stage": "validate", "state": "running"}, "validating_files"),
        ({"stage": "train"}, "queued"),
        ({"stage": "train", "state": "running"}, "running"),
        ({"stage": "train", "state": "running", "stop_reason": "cancelled"}, "running"),
        ({"stage": "train", "state": "succeeded"}, "succeeded"),
        ({"stage": "validate", "state": "failed", "error_code": "x"}, "failed"),
        ({"stage": "validate", "state": "cancelled"}, "cancelled"),
    ],
)
def test_status_is_always_one_of_openais(changed: dict[str, Any], status: str) -> None:
    assert shown(a_job(**changed))["status"] == status


def test_an_end_is_foretold_from_measured_speed_alone() -> None:
    running = a_job(stage="train", state="running")
    told = MetricsRow(7, 0.5, {"train_loss": 1.0, "eta_seconds": 90.0}, CREATED)
    later = MetricsRow(8, 0.5, {"valid_loss": 2.0}, CREATED + 5)
    assert shown(running)["estimated_finish"] is None
    assert shown(running, recent=[later])["estimated_finish"] is None
    assert shown(running, recent=[later, told])["estimated_finish"] == CREATED + 90
    assert shown(running, recent=[told], paused_at=CREATED)["estimated_finish"] is None
    waiting = a_job(stage="train", state="queued")
    assert shown(waiting, recent=[told])["estimated_finish"] is None
    assert shown(running, recent=[later, told])["loss"] == 1.0


def test_hyperparameters_are_as_decided_once_they_are() -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2}}}
    asked = shown(a_job(), spec=SPEC | {"method": method})
    assert asked["hyperparameters"]["n_epochs"] == 2
    assert asked["hyperparameters"]["batch_size"] == "auto"
    decided = {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.0, "beta": 0.1}
    detail = {"training": {"hyperparameters": decided, "steps": 4, "device": "cpu"}}
    known = shown(a_job(stage="train"), spec=SPEC | {"method": method}, detail=detail)
    assert known["hyperparameters"] == decided
    assert known["method"]["dpo"]["hyperparameters"] == decided
    assert known["training"] == {"steps": 4, "device": "cpu"}


def test_the_older_place_of_hyperparameters_counts() -> None:
    job = shown(a_job(), spec=SPEC | {"hyperparameters": {"n_epochs": 5}})
    assert job["hyperparameters"]["n_epochs"] == 5


def test_only_trackers_that_openai_knows_are_integrations() -> None:
    trackers = [{"type": "tensorboard"}, {"type": "wandb", "wandb": {"project": "p"}}]
    (only,) = shown(a_job(), spec=SPEC | {"integrations": trackers})["integrations"]
    assert only["wandb"]["project"] == "p"


def test_the_card_is_a_result_before_there_are_others() -> None:
    detail = {"card_file_id": "file-card", "data": {"counts": {}, "estimate": {"steps": 3}}}
    job = shown(a_job(stage="train"), detail=detail)
    assert (job["result_files"], job["estimate"]) == (["file-card"], {"steps": 3})
    assert job["data"] == {"counts": {}}


@pytest.mark.parametrize(
    ("kind", "data", "message", "level"),
    [
        ("created", {"model": "m"}, "Fine-tuning of m was accepted; its files are validated",
         "info"),
        ("started", {"step": 0, "steps": 9}, "The training has begun, of 9 steps", "info"),
        ("started", {"step": 4}, "The training goes on after step 4", "info"),
        ("metrics", {"step": 4, "steps": 9, "values": {"train_loss": 0.12345, "lr": 1.0}},
         "Step 4/9, train loss=0.1235", "info"),
        ("metrics", {"step": 4, "values": {"train_loss": None}}, "Step 4", "info"),
        ("checkpoint", {"step": 4, "model": "ft:m"}, "Checkpoint at step 4: ft:m", "info"),
        ("note", {"message": "{odd}", "level": "warn"}, "{odd}", "warn"),
        ("note", {"message": "x", "level": "loud"}, "x", "info"),
        ("failed", {"message": "why"}, "The job failed: why", "error"),
        ("failed", {}, "The job failed: see its error", "error"),
        ("cancelled", {}, "The job was cancelled", "info"),
        ("succeeded", {"fine_tuned_model": None}, "The dry run has ended", "info"),
        ("something_new", {}, "something new", "info"),
    ],
)  # fmt: skip
def test_events_say_what_happened(
    kind: str, data: dict[str, Any], message: str, level: str
) -> None:
    event = fine_tuning_rendering.event(EventRow(5, f"fine_tune.{kind}", data, CREATED))
    fine_tuning_objects.FineTuningEvent.model_validate(event)
    assert (event["id"], event["message"], event["level"]) == ("ft-event-5", message, level)
