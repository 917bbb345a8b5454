"""Evaluations over HTTP: their shape, checks at the door, and what is one's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from api import model_job_objects, objects
from api.model_job_requests import check_evaluation
from shared.lifecycle import BadLine, working
from shared.lifecycle.working import EvaluationEnd, ModelMeasured
from shared.specs.model_jobs import EvaluationSpec
from tests.integration.api_case import ApiCase, api_fixture
from tests.integration.model_job_api_case import (
    EVALUATIONS,
    claim,
    optimize,
    plant_fixture,
    tuned,
    upload,
)
from tests.integration.tuning_case import TuningPlant
from tests.plant import wait_until

__all__ = ["api_fixture", "plant_fixture"]


def body_of(api: ApiCase, **changed: Any) -> dict[str, Any]:
    return {"models": ["writer"], "file": upload(api), "metric": "loss"} | changed


def create(api: ApiCase, **changed: Any) -> dict[str, Any]:
    reply = api.post(EVALUATIONS, body_of(api, **changed))
    assert reply.status_code == 202, reply.json
    shown = checked(reply.json)
    assert reply.headers["Location"] == f"{EVALUATIONS}/{shown['id']}"
    return shown


def checked(shown: dict[str, Any]) -> dict[str, Any]:
    model_job_objects.Evaluation.model_validate(shown)
    return shown


def test_an_evaluation_from_its_submission_to_its_numbers(api: ApiCase, plant: TuningPlant) -> None:
    shown = create(api, models=["writer", "poet"], metric="rougeL", max_examples=7)
    assert shown["id"].startswith("eval_")
    assert (shown["status"], shown["direction"], shown["result"]) == ("queued", "max", None)
    assert (shown["models"], shown["max_examples"]) == (["writer", "poet"], 7)
    assert api.bell.rung[-1] == "train"

    held = claim(plant)
    values = {"writer": {"rougeL": 0.25, "loss": 2.0}, "poet": {"rougeL": None, "loss": 3.0}}
    measured = [
        ModelMeasured(model=name, values=dict(found), examples=7, tokens=70, seconds=1.5)
        for name, found in values.items()
    ]
    with api.begin() as connection:
        end = EvaluationEnd(measured=measured, seconds=3.0)
        assert working.finish_evaluation(connection, "trainer", held.held, end)

    shown = checked(api.get(f"{EVALUATIONS}/{shown['id']}?wait=1").json)
    assert (shown["status"], shown["progress"]) == ("succeeded", 1.0)
    result = shown["result"]
    assert (result["best"], result["examples"], result["seconds"]) == ("writer", 7, 3.0)
    assert [item["value"] for item in result["models"]] == [0.25, None]
    job = api.get(f"/v1/jobs/{shown['id']}").json
    objects.Job.model_validate(job)
    assert (job["kind"], job["result"]["best"]) == ("evaluation", "writer")
    assert job["usage"]["input_tokens"] == 140


def test_lines_that_were_refused_are_shown(api: ApiCase, plant: TuningPlant) -> None:
    shown = create(api)
    held = claim(plant)
    with api.begin() as connection:
        working.fail_model_job(
            connection,
            "trainer",
            held.held,
            code="invalid_evaluation_file",
            message="1 bad line",
            param="file",
            errors=[BadLine("invalid_json", "no JSON", 3)],
        )
    error = checked(api.get(f"{EVALUATIONS}/{shown['id']}").json)["error"]
    assert (error["code"], error["param"], error["lines"][0]["line"]) == (
        "invalid_evaluation_file",
        "file",
        3,
    )


def test_lists_are_newest_first_and_one_s_own(api: ApiCase, plant: TuningPlant) -> None:
    made = [create(api)["id"] for _ in range(3)]
    page = api.get(f"{EVALUATIONS}?limit=2").json
    assert [item["id"] for item in page["data"]] == made[:0:-1]
    assert page["has_more"] is True
    rest = api.get(f"{EVALUATIONS}?after={page['last_id']}").json
    assert [item["id"] for item in rest["data"]] == made[:1]
    assert len(api.get("/v1/jobs?kind=evaluation").json["data"]) == 3
    stranger = api.new_tenant()
    assert api.get(EVALUATIONS, stranger).json["data"] == []
    for path in (made[0], "eval_nothing", f"{made[0]}/cancel"):
        reply = api.get(f"{EVALUATIONS}/{path}", stranger)
        assert reply.status_code in {404, 405}
    assert api.client.post(f"{EVALUATIONS}/{made[0]}/cancel", headers=stranger).status_code == 404


def test_cancelling(api: ApiCase, plant: TuningPlant) -> None:
    job_id = create(api)["id"]
    for _ in range(2):
        reply = api.post(f"{EVALUATIONS}/{job_id}/cancel")
        assert (reply.status_code, checked(reply.json)["status"]) == (200, "cancelled")
    other = optimize(api, "writer", evaluation_file=upload(api)).json["id"]
    assert api.post(f"{EVALUATIONS}/{other}/cancel").status_code == 404


def test_the_same_key_makes_one_job(api: ApiCase, plant: TuningPlant) -> None:
    body, key = body_of(api), {"Idempotency-Key": "once"}
    first = api.post(EVALUATIONS, body, key).json["id"]
    assert api.post(EVALUATIONS, body, key).json["id"] == first
    other = api.post(EVALUATIONS, body | {"metric": "perplexity"}, key)
    assert (other.status_code, other.json["error"]["code"]) == (422, "idempotency_mismatch")


def test_a_model_may_be_named_by_its_alias(api: ApiCase, plant: TuningPlant) -> None:
    _, name = tuned(api, plant)
    reply = api.post("/v1/model_aliases", {"name": "tone@best", "model": name})
    assert reply.status_code in {200, 201}, reply.json
    shown = create(api, models=["writer", "tone@best"])
    assert shown["models"] == ["writer", name]
    assert shown["aliases"] == {"tone@best": name}
    twice = api.post(EVALUATIONS, body_of(api, models=["tone@best", name]))
    assert (twice.status_code, twice.json["error"]["param"]) == (400, "models")


@pytest.mark.parametrize(
    ("changed", "status", "wrong"),
    [
        ({"models": []}, 400, ("invalid_request", "models")),
        ({"models": ["writer"] * 2}, 400, ("invalid_request", "models")),
        ({"models": ["writer"] * 9}, 400, ("invalid_request", "models")),
        ({"models": ["nobody"]}, 404, ("model_not_found", "models")),
        ({"models": ["a\0b"]}, 404, ("model_not_found", "models")),
        ({"models": ["painter"]}, 400, ("model_not_measurable", "models")),
        ({"models": ["writer", "sorter"]}, 400, ("invalid_request", "models")),
        ({"file": "file-nothing"}, 404, ("not_found", "file")),
        ({"metric": "beauty"}, 400, ("invalid_request", "metric")),
        ({"metric": "macro_f1"}, 400, ("invalid_request", "metric")),
        ({"models": ["sorter"], "metric": "bleu"}, 400, ("invalid_request", "metric")),
        ({"direction": "up"}, 400, ("invalid_request", "direction")),
        ({"max_examples": 0}, 400, ("invalid_request", "max_examples")),
        ({"colour": "red"}, 400, ("invalid_request", "colour")),
    ],
)
def test_what_can_not_be_measured(
    api: ApiCase, plant: TuningPlant, changed: dict[str, Any], status: int, wrong: tuple[str, str]
) -> None:
    reply = api.post(EVALUATIONS, body_of(api, **changed))
    error = reply.json["error"]
    assert reply.status_code == status, reply.json
    assert (error["code"], error["param"]) == wrong


def test_a_file_of_another_purpose_or_tenant(api: ApiCase, plant: TuningPlant) -> None:
    reply = api.post(EVALUATIONS, body_of(api, file=upload(api, "batch")))
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "file")
    theirs = upload(api, headers=api.new_tenant())
    assert api.post(EVALUATIONS, body_of(api, file=theirs)).status_code == 404


def test_what_is_measured_stays(api: ApiCase, plant: TuningPlant) -> None:
    _, name = tuned(api, plant)
    file = upload(api)
    job_id = create(api, models=[name], file=file)["id"]
    refused = api.delete(f"/v1/models/{name}")
    assert (refused.status_code, job_id in refused.json["detail"]) == (409, True)
    assert api.delete(f"/v1/files/{file}").status_code == 409
    api.post(f"{EVALUATIONS}/{job_id}/cancel")
    assert api.delete(f"/v1/models/{name}").status_code == 200
    assert api.delete(f"/v1/files/{file}").status_code == 200


WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def test_models_are_held_in_the_order_in_which_checkpoints_are_dropped(
    api: ApiCase, plant: TuningPlant
) -> None:
    spec = EvaluationSpec(models=["writer", "poet"], file=upload(api), metric="loss")
    tenant = plant.scalar("SELECT tenant_id FROM files WHERE id = :id", id=spec.file)
    with plant.engine.begin() as training, ThreadPoolExecutor(1) as threads:
        training.execute(text("SELECT 1 FROM models WHERE id = 'poet' FOR UPDATE"))
        checked = threads.submit(_check, plant, tenant, spec)
        wait_until(
            lambda: plant.scalar(WAITING) == 1,
            60.0,
            lambda: repr(checked),
        )
        # Nobody has it: whoever locks both in their order gets them.
        training.execute(text("SELECT 1 FROM models WHERE id = 'writer' FOR UPDATE NOWAIT"))
        training.rollback()
        assert checked.result(60.0) == ["writer", "poet"]


def _check(plant: TuningPlant, tenant: str, spec: EvaluationSpec) -> list[str]:
    with plant.engine.begin() as connection:
        return [model.id for model in check_evaluation(connection, tenant, spec)]
