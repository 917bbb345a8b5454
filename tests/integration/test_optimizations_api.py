"""Optimisations over HTTP: jobs, what they are compared by, and what is refused at the door."""

from __future__ import annotations

from typing import Any

import pytest

from api import objects
from shared.lifecycle.tuned_models import add_model
from tests.integration.api_case import ApiCase, api_fixture
from tests.integration.model_job_api_case import (
    EVALUATIONS,
    INT8,
    optimize,
    plant_fixture,
    tuned,
    upload,
)
from tests.integration.tuning_case import TuningPlant, model_of

__all__ = ["api_fixture", "plant_fixture"]


def test_an_optimisation_is_a_job(api: ApiCase, plant: TuningPlant) -> None:
    reply = optimize(api, "writer", evaluation_file=upload(api))
    assert reply.status_code == 202, reply.json
    objects.Job.model_validate(reply.json)
    job_id = reply.json["id"]
    assert reply.headers["Location"] == f"/v1/jobs/{job_id}"
    assert job_id.startswith("optjob-")
    assert (reply.json["kind"], reply.json["model"]) == ("optimization", "writer")
    assert api.get(f"/v1/jobs/{job_id}").json["state"] == "queued"
    assert [job["id"] for job in api.get("/v1/jobs?kind=optimization").json["data"]] == [job_id]
    assert api.post(f"/v1/jobs/{job_id}/cancel").json["state"] == "cancelled"
    assert api.get(f"{EVALUATIONS}/{job_id}").status_code == 404


def test_the_same_key_is_of_one_model(api: ApiCase, plant: TuningPlant) -> None:
    key, file = {"Idempotency-Key": "once"}, upload(api)
    first = optimize(api, "writer", key, evaluation_file=file).json["id"]
    assert optimize(api, "writer", key, evaluation_file=file).json["id"] == first
    assert optimize(api, "poet", key, evaluation_file=file).status_code == 422


def test_data_of_its_own_training_are_taken_and_held(api: ApiCase, plant: TuningPlant) -> None:
    job_id, name = tuned(api, plant)
    source = plant.job(job_id)
    reply = optimize(api, name, method={"type": "merge"})
    assert reply.status_code == 202, reply.json
    job = plant.job(reply.json["id"])
    assert job.input_file_id == source.input_file_id
    assert job.detail["held_out"]["job"] == job_id
    assert job.detail["held_out"]["spec"] == source.spec
    needed = plant.sql("SELECT model_id FROM job_models WHERE job_id = :id", id=job.id)
    assert {row.model_id for row in needed} == {name, "writer"}
    assert api.delete(f"/v1/files/{source.input_file_id}").status_code == 409
    api.post(f"/v1/jobs/{job.id}/cancel")
    assert api.delete(f"/v1/files/{source.input_file_id}").status_code == 200
    reply = optimize(api, name)
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "evaluation_file")
    assert "are gone" in reply.json["detail"]


@pytest.mark.parametrize(
    ("model", "body", "status", "param"),
    [
        ("writer", {}, 400, "evaluation_file"),
        ("writer", {"evaluation_file": "file-nothing"}, 404, "evaluation_file"),
        ("nobody", {}, 404, "model"),
        ("painter", {}, 400, "model"),
        ("writer", {"method": {"type": "merge"}}, 400, "model"),
        ("writer", {"method": {"type": "shrink"}}, 400, "method"),
        ("writer", {"method": {"type": "quantize", "scheme": "int2"}}, 400, "method"),
        ("writer", {"method": {"type": "prune", "amount": 1.0}}, 400, "method"),
        ("writer", {"method": INT8 | {"amount": 0.5}}, 400, "method"),
        ("writer", {"method": None}, 400, "method"),
        ("writer", {"metric": "macro_f1"}, 400, "metric"),
        ("writer", {"max_drop": -0.1}, 400, "max_drop"),
        ("writer", {"suffix": "a:b"}, 400, "suffix"),
    ],
)
def test_what_can_not_be_made_smaller(  # noqa: PLR0917 - what is asked, and what is answered
    api: ApiCase, plant: TuningPlant, model: str, body: dict[str, Any], status: int, param: str
) -> None:
    reply = optimize(api, model, **body)
    assert reply.status_code == status, reply.json
    assert str(reply.json["error"]["param"]).split(".")[0] == param


def test_a_quantised_model_is_neither_made_smaller_nor_trained(
    api: ApiCase, plant: TuningPlant
) -> None:
    job_id, name = tuned(api, plant)
    tenant = plant.job(job_id).tenant_id
    detail = {"recipe": "supervised", "parents": [name], "optimization": INT8}
    small = model_of("ft:writer:t:int8:01234567", [], adapter=False, detail=detail)
    with api.begin() as connection:
        add_model(connection, tenant, job_id, small)
    reply = optimize(api, small.id, evaluation_file=upload(api))
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "model_not_optimizable")
    body = {"model": small.id, "training_file": upload(api, "fine-tune")}
    reply = api.post("/v1/fine_tuning/jobs", body)
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "model_not_tunable")
