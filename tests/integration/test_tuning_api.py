"""Fine-tuning over HTTP: OpenAI's shapes, checks at the door, progress, and what is one's own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob as TheirJob
from openai.types.fine_tuning import FineTuningJobEvent as TheirEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint as TheirCheckpoint

from api import fine_tuning_objects, model_objects, objects
from shared.db.models import sync_catalog
from shared.lifecycle import BadLine
from shared.lifecycle.working import Claim, ReleaseReason, TrainingStep
from shared.models_catalog import ModelEntry
from tests.integration.api_case import MODEL, ApiCase, api_fixture
from tests.integration.tuning_case import TuningPlant, model_of, name_of, training_end

__all__ = ["api_fixture"]

JOBS = "/v1/fine_tuning/jobs"
CATALOG = [
    ModelEntry(id=MODEL, engine="fake", endpoints=["/v1/completions"]),
    ModelEntry(id="writer", engine="text"),
    ModelEntry(id="painter", engine="image"),
    ModelEntry(id="reader", engine="speech"),
    ModelEntry(id="vectors", engine="embedding"),
    ModelEntry(id="stand-in", engine="fake"),
]


@pytest.fixture
def plant(api: ApiCase, database_url: str) -> Iterator[TuningPlant]:
    with api.begin() as connection:
        sync_catalog(connection, CATALOG)
    plant = TuningPlant(database_url)
    yield plant
    plant.close()


def upload(api: ApiCase, headers: dict[str, str] | None = None, **fields: str) -> str:
    reply = api.upload(b'{"messages": []}\n', headers=headers, purpose="fine-tune", **fields)
    return str(reply.json["id"])


def create(api: ApiCase, **body: Any) -> dict[str, Any]:
    reply = api.post(JOBS, {"model": "writer", "training_file": upload(api)} | body)
    assert reply.status_code == 200, reply.json
    shown: dict[str, Any] = reply.json
    return checked(shown)


def checked(shown: dict[str, Any]) -> dict[str, Any]:
    """It is the shape that we document, and one that OpenAI's client takes."""
    fine_tuning_objects.FineTuningJob.model_validate(shown)
    if shown["recipe"] in {"supervised", "dpo"}:
        TheirJob.model_validate(shown, strict=True)
    return shown


def look(api: ApiCase, job_id: str) -> dict[str, Any]:
    return checked(api.get(f"{JOBS}/{job_id}").json)


def train(api: ApiCase, plant: TuningPlant, **body: Any) -> tuple[str, Claim]:
    """A job that has come to its training, which is claimed."""
    job_id = create(api, **body)["id"]
    assert plant.open_training(plant.claim_one("up", pools=["upkeep"]).held)
    plant.dispatch("train")
    return job_id, plant.claim_training()


# --- a job's way --------------------------------------------------------------------------------


def test_a_job_goes_from_its_files_to_its_model(api: ApiCase, plant: TuningPlant) -> None:
    created = create(api, suffix="support", metadata={"team": "a"}, seed=7)
    job_id = created["id"]
    assert job_id.startswith("ftjob-")
    assert created["status"] == "validating_files"
    assert created["hyperparameters"] == {
        "n_epochs": "auto",
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
    }
    assert (created["seed"], created["lineage"], created["suffix"]) == (7, ["writer"], "support")
    assert api.bell.rung == ["upkeep"]
    plant.open_training(plant.claim_one("up", pools=["upkeep"]).held, found={"estimate": {"s": 1}})
    waiting = look(api, job_id)
    assert (waiting["status"], waiting["estimate"]) == ("queued", {"s": 1})
    plant.dispatch("train")
    claim = plant.claim_training()
    plant.report(
        claim.held,
        TrainingStep(5, 0.5, {"train_loss": 2.5, "eta_seconds": 60.0}),
        TrainingStep(6, 0.6, {"valid_loss": 2.0, "train_loss": math.nan}),
        progress=0.25,
        detail={"steps": 24, "step": 6, "hyperparameters": {"n_epochs": 3, "batch_size": 4}},
    )
    running = look(api, job_id)
    assert (running["status"], running["progress"], running["step"], running["steps"]) == (
        "running",
        0.25,
        6,
        24,
    )
    assert running["loss"] is None  # the newest was not a number
    assert running["estimated_finish"] > running["created_at"] + 50
    assert running["hyperparameters"]["n_epochs"] == 3
    assert running["method"]["supervised"]["hyperparameters"]["batch_size"] == 4
    end = training_end(claim)
    plant.finish_training(claim, end)
    done = look(api, job_id)
    assert (done["status"], done["fine_tuned_model"]) == ("succeeded", name_of(claim))
    assert (done["trained_tokens"], done["progress"], done["estimated_finish"]) == (1234, 1, None)
    assert done["metrics"] == {"after": {"valid_loss": 0.5}}
    (report,) = done["result_files"]
    assert api.get(f"/v1/files/{report}").json["purpose"] == "fine-tune-results"


def test_rejected_data_are_told_line_by_line(api: ApiCase, plant: TuningPlant) -> None:
    job_id = create(api)["id"]
    held = plant.claim_one("up", pools=["upkeep"]).held
    plant.reject(held, [BadLine("invalid_json", "not JSON", 3)])
    shown = look(api, job_id)
    assert shown["status"] == "failed"
    assert shown["error"]["code"] == "invalid_training_file"
    assert shown["error"]["param"] == "training_file"
    assert shown["error"]["lines"] == [
        {"code": "invalid_json", "message": "not JSON", "param": None, "line": 3}
    ]


def test_pausing_keeps_a_legal_status(api: ApiCase, plant: TuningPlant) -> None:
    job_id, claim = train(api, plant)
    for _ in range(2):
        paused = checked(api.post(f"{JOBS}/{job_id}/pause").json)
        assert (paused["paused"], paused["status"]) == (True, "running")
    plant.release("trainer", claim.held, ReleaseReason.PREEMPTED)
    assert look(api, job_id)["status"] == "queued"
    api.bell.rung.clear()
    for _ in range(2):
        assert not checked(api.post(f"{JOBS}/{job_id}/resume").json)["paused"]
    assert api.bell.rung == ["train"]
    api.post(f"{JOBS}/{job_id}/cancel")
    for action in ("pause", "resume"):
        assert api.post(f"{JOBS}/{job_id}/{action}").status_code == 409


def test_cancelling_a_running_training_asks_it_to_stop(api: ApiCase, plant: TuningPlant) -> None:
    job_id, claim = train(api, plant)
    shown = checked(api.post(f"{JOBS}/{job_id}/cancel").json)
    assert (shown["status"], shown["stopping"]) == ("running", True)
    assert api.post(f"{JOBS}/{job_id}/pause").status_code == 409
    plant.release("trainer", claim.held, ReleaseReason.PREEMPTED)
    assert look(api, job_id)["status"] == "cancelled"
    assert api.post(f"{JOBS}/{job_id}/cancel").status_code == 200
    refused = api.post(f"{JOBS}/{create(api)['id']}/cancel")
    assert refused.json["status"] == "cancelled"


def test_a_finished_job_can_not_be_cancelled(api: ApiCase, plant: TuningPlant) -> None:
    job_id, claim = train(api, plant)
    plant.finish_training(claim)
    reply = api.post(f"{JOBS}/{job_id}/cancel")
    assert reply.status_code == 409
    assert reply.headers["x-should-retry"] == "false"


# --- at the door --------------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "nobody"}, 404, "model_not_found", "model"),
    ({"model": "\0"}, 404, "model_not_found", "model"),
    ({"model": "\ud800"}, 400, "invalid_request", "model"),
    ({"model": "reader"}, 400, "model_not_tunable", "model"),
    ({"model": "vectors"}, 400, "model_not_tunable", "model"),
    ({"method": {"type": "text_to_image"}}, 400, "model_not_tunable", "model"),
    ({"method": {"type": "gan"}}, 400, "model_not_tunable", "model"),
    ({"training_file": "file-none"}, 404, "not_found", "training_file"),
    ({"training_file": "\0"}, 404, "not_found", "training_file"),
    ({"validation_file": "file-none"}, 404, "not_found", "validation_file"),
    ({"suffix": "no spaces"}, 400, "invalid_request", "suffix"),
    ({"metadata": {"k" * 65: "v"}}, 400, "invalid_request", "metadata." + "k" * 65),
    ({"metadata": {"k": "\0"}}, 400, "invalid_request", "metadata"),
    ({"metadata": {"k": "\ud800"}}, 400, "invalid_request", "metadata.k"),
    ({"processes": 0}, 400, "invalid_request", "processes"),
    ({"bogus": 1}, 400, "invalid_request", "bogus"),
    ({"checkpoints": {"every_steps": 10**30}}, 400, "invalid_request", "checkpoints.every_steps"),
    ({"evaluation": {"every_steps": 10**30}}, 400, "invalid_request", "evaluation.every_steps"),
    ({"method": {"type": "reinforcement"}}, 400, "invalid_request", "method.type"),
    ({"hyperparameters": {"n_epochs": 2.5}}, 400, "invalid_request", "hyperparameters.n_epochs"),
]


def test_what_can_not_be_trained_is_refused(api: ApiCase, plant: TuningPlant) -> None:
    good = {"model": "writer", "training_file": upload(api)}
    for body, status, code, param in REFUSED:
        reply = api.post(JOBS, good | body)
        objects.Problem.model_validate(reply.json)
        error = reply.json["error"]
        assert (reply.status_code, error["code"]) == (status, code), body
        assert str(error["param"]).startswith(param), (body, error)
    endless = json.dumps(good | {"early_stopping": {"min_delta": 0.5}}).replace("0.5", "1e999")
    kind = "application/json"
    reply = api.client.post(JOBS, data=endless, content_type=kind, headers=api.key)
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "early_stopping.min_delta")
    assert plant.scalar("SELECT count(*) FROM jobs") == 0


def test_a_file_of_another_purpose_is_refused(api: ApiCase, plant: TuningPlant) -> None:
    batch = api.upload().json["id"]
    reply = api.post(JOBS, {"model": "writer", "training_file": batch})
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "training_file")


def test_recipes_start_from_models_of_their_kind(api: ApiCase, plant: TuningPlant) -> None:
    for model, recipe in (
        ("writer", "dpo"),
        ("writer", "text_classification"),
        ("vectors", "token_classification"),
        ("painter", "text_to_image"),
        ("gan", "gan"),
        ("stand-in", "vae"),
    ):
        assert create(api, model=model, method={"type": recipe})["recipe"] == recipe


def test_a_tuned_model_is_tuned_again(api: ApiCase, plant: TuningPlant) -> None:
    _, claim = train(api, plant)
    plant.finish_training(claim)
    again = create(api, model=name_of(claim))
    assert again["lineage"] == [name_of(claim), "writer"]


def test_a_sampler_goes_on_with_its_own_recipe_only(api: ApiCase, plant: TuningPlant) -> None:
    _, claim = train(api, plant, model="gan", method={"type": "gan"})
    detail = {"recipe": "gan", "parents": []}
    made = model_of("ft:gan:x::1", [], engine="sampler", detail=detail, base_model=None)
    plant.finish_training(claim, training_end(claim, model=made))
    assert create(api, model="ft:gan:x::1", method={"type": "gan"})["lineage"] == ["ft:gan:x::1"]
    body = {"model": "ft:gan:x::1", "training_file": upload(api), "method": {"type": "vae"}}
    assert api.post(JOBS, body).json["error"]["code"] == "model_not_tunable"


def test_a_key_makes_one_job(api: ApiCase, plant: TuningPlant) -> None:
    body = {"model": "writer", "training_file": upload(api)}
    key = {"Idempotency-Key": "once"}
    first, second = (api.post(JOBS, body, key).json["id"] for _ in range(2))
    assert first == second
    assert api.post(JOBS, body | {"suffix": "x"}, key).status_code == 422
    assert plant.scalar("SELECT count(*) FROM jobs") == 1


def test_files_of_an_open_job_can_not_be_deleted(api: ApiCase, plant: TuningPlant) -> None:
    files = {"training_file": upload(api), "validation_file": upload(api)}
    create(api, **files)
    for file_id in files.values():
        assert api.delete(f"/v1/files/{file_id}").status_code == 409


# --- lists --------------------------------------------------------------------------------------


def test_jobs_are_listed_by_labels(api: ApiCase, plant: TuningPlant) -> None:
    odd = create(api, metadata={"team": "ü 😀", "run": "1"})["id"]
    plain = create(api, metadata={"team": "b"})["id"]
    bare = create(api)["id"]

    def ids(query: str) -> list[str]:
        page = api.get(f"{JOBS}{query}").json
        fine_tuning_objects.FineTuningJobList.model_validate(page)
        return [item["id"] for item in page["data"]]

    assert ids("") == [bare, plain, odd]
    assert ids("?limit=1") == [bare]
    assert ids(f"?after={bare}&limit=1") == [plain]
    assert ids("?metadata[team]=%C3%BC%20%F0%9F%98%80") == [odd]
    assert ids("?metadata%5Bteam%5D=b") == [plain]
    assert ids("?metadata[team]=b&metadata[run]=1") == []
    assert ids("?metadata=null") == [bare]
    assert api.get(f"{JOBS}?metadata[team]=%00").status_code == 400
    assert {job["kind"] for job in api.get("/v1/jobs").json["data"]} == {"fine_tune"}
    assert len(api.get("/v1/jobs?kind=fine_tune").json["data"]) == 3
    objects.JobList.model_validate(api.get("/v1/jobs").json)


def test_events_come_newest_first_in_pages(api: ApiCase, plant: TuningPlant) -> None:
    job_id, claim = train(api, plant)
    plant.report(
        claim.held,
        TrainingStep(4, 0.1, {"valid_loss": 1.25}),
        detail={"steps": 8, "resumed_from": 0},
    )
    plant.checkpoint(claim, 4)
    plant.finish_training(claim)
    seen, after = [], ""
    while True:
        page = api.get(f"{JOBS}/{job_id}/events?limit=2{after}").json
        fine_tuning_objects.FineTuningEventList.model_validate(page)
        for item in page["data"]:
            TheirEvent.model_validate(item, strict=True)
        seen += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert [item["message"].partition(":")[0] for item in reversed(seen)] == [
        "Fine-tuning of writer was accepted; its files are validated",
        "The files are valid; the training waits for a worker",
        "The training has begun, of 8 steps",
        "Step 4/8, valid loss=1.25",
        "Checkpoint at step 4",
        "New fine-tuned model",
    ]
    metrics = next(item for item in seen if item["type"] == "metrics")
    assert metrics["data"] == {"step": 4, "valid_loss": 1.25}
    assert api.get(f"{JOBS}/{job_id}/events?after=nonsense").status_code == 400


def test_checkpoints_can_be_asked_by_name(api: ApiCase, plant: TuningPlant) -> None:
    job_id, claim = train(api, plant)
    for step in (10, 20):
        plant.checkpoint(claim, step)
    page = api.get(f"{JOBS}/{job_id}/checkpoints").json
    fine_tuning_objects.FineTuningCheckpointList.model_validate(page)
    for item in page["data"]:
        TheirCheckpoint.model_validate(item, strict=True)
    assert [item["step_number"] for item in page["data"]] == [20, 10]
    assert page["data"][0]["metrics"] == {"step": 20.0, "valid_loss": 0.05}
    older = api.get(f"{JOBS}/{job_id}/checkpoints?after={page['first_id']}").json
    assert [item["step_number"] for item in older["data"]] == [10]
    named = page["data"][0]["fine_tuned_model_checkpoint"]
    assert api.get(f"/v1/models/{named}").json["id"] == named


def test_numbers_are_paged_by_step(api: ApiCase, plant: TuningPlant) -> None:
    job_id, claim = train(api, plant)
    steps = [TrainingStep(step, step / 10, {"train_loss": 1 / step}) for step in range(1, 6)]
    plant.report(claim.held, *steps)
    page = api.get(f"{JOBS}/{job_id}/metrics?limit=3").json
    fine_tuning_objects.FineTuningMetricsList.model_validate(page)
    assert [item["step"] for item in page["data"]] == [1, 2, 3]
    rest = api.get(f"{JOBS}/{job_id}/metrics?after={page['last_id']}").json
    assert [(item["step"], item["values"]["train_loss"]) for item in rest["data"]] == [
        (4, 0.25),
        (5, 0.2),
    ]
    assert not rest["has_more"]


def test_a_later_attempts_numbers_replace_those_it_did_not_live_up_to(
    api: ApiCase, plant: TuningPlant
) -> None:
    job_id, claim = train(api, plant)
    first = [TrainingStep(step, 0.0, {"train_loss": 9.0}) for step in range(1, 9)]
    plant.report(claim.held, *first)
    plant.lose("trainer")
    plant.session("again", pools=["train"])
    second = plant.claim_training("again")
    plant.report(second.held, TrainingStep(5, 0.0, {"valid_loss": 1.0}), session="again")
    plant.report(second.held, TrainingStep(5, 0.0, {"train_loss": 2.0}), session="again")
    shown = api.get(f"{JOBS}/{job_id}/metrics").json["data"]
    assert [item["step"] for item in shown] == [1, 2, 3, 4, 5]
    assert shown[-1]["values"] == {"valid_loss": 1.0, "train_loss": 2.0}


# --- streams ------------------------------------------------------------------------------------


def sent(text: str) -> list[tuple[str | None, Any]]:
    """(id, data) of each message; heartbeats and the like left out."""
    messages = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "data" in fields:
            data = fields["data"]
            shown = data if data == "[DONE]" else json.loads(data)
            messages.append((fields.get("id"), shown))
    return messages


def test_a_stream_tells_all_in_order_and_ends_with_the_job(
    api: ApiCase, plant: TuningPlant
) -> None:
    job_id, claim = train(api, plant)
    plant.finish_training(claim)
    reply = api.get(f"{JOBS}/{job_id}/events?stream=true")
    assert reply.content_type.startswith("text/event-stream")
    messages = sent(reply.text)
    assert messages[-1] == (None, "[DONE]")
    told = [event["message"] for _, event in messages[:-1]]
    assert told[0].startswith("Fine-tuning of writer")
    assert told[-1].startswith("New fine-tuned model")
    last_seen = str(messages[1][0])
    rest = api.get(
        f"{JOBS}/{job_id}/events",
        {"Accept": "text/event-stream", "Last-Event-ID": last_seen},
    )
    assert sent(rest.text) == messages[2:]
    reply.close()
    rest.close()
    assert api.services.waiter.waiting == 0


def test_a_stream_waits_for_what_happens_and_its_places_are_few(
    api: ApiCase, plant: TuningPlant
) -> None:
    job_id, claim = train(api, plant)
    client = api.app.test_client()
    reply = client.get(f"{JOBS}/{job_id}/events?stream=true", headers=api.key)
    parts = iter(reply.response)
    assert next(parts)
    assert api.services.waiter.waiting == 1
    plant.finish_training(claim)
    rest = "".join(part if isinstance(part, str) else part.decode() for part in parts)
    assert sent(rest)[-1] == (None, "[DONE]")
    reply.close()
    assert api.services.waiter.waiting == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.services.waiter, "_max_of_tenant", 0)
        assert api.get(f"{JOBS}/{job_id}/events?stream=true").status_code == 429


# --- models -------------------------------------------------------------------------------------


def test_a_tuned_model_tells_where_it_comes_from_and_can_be_deleted(
    api: ApiCase, plant: TuningPlant
) -> None:
    job_id, claim = train(api, plant)
    plant.finish_training(claim)
    path = f"/v1/models/{name_of(claim)}"
    shown = api.get(path).json
    model_objects.Model.model_validate(shown)
    assert shown["pressrun"]["job_id"] == job_id
    assert (shown["pressrun"]["base_model"], shown["pressrun"]["parents"]) == ("writer", ["writer"])
    listed = api.get("/v1/models").json
    model_objects.ModelList.model_validate(listed)
    assert name_of(claim) in {item["id"] for item in listed["data"]}
    stranger = api.new_tenant()
    assert api.client.get(path, headers=stranger).status_code == 404
    assert api.client.delete(path, headers=stranger).status_code == 404
    assert api.delete(path).json == {"id": name_of(claim), "object": "model", "deleted": True}
    assert api.delete(path).status_code == 404
    assert api.get(path).status_code == 404


def test_models_that_others_need_are_not_deleted(api: ApiCase, plant: TuningPlant) -> None:
    _, claim = train(api, plant)
    plant.finish_training(claim)
    base = name_of(claim)
    again, second = train(api, plant, model=base)
    assert api.delete(f"/v1/models/{base}").status_code == 409  # a training starts from it
    adapter = model_of("ft:second", [], base_model=base)
    plant.finish_training(second, training_end(second, model=adapter))
    assert look(api, again)["status"] == "succeeded"
    reply = api.delete(f"/v1/models/{base}")
    assert (reply.status_code, reply.json["error"]["message"]) == (
        409,
        "ft:second needs this model",
    )
    assert api.delete("/v1/models/ft:second").status_code == 200
    assert api.delete(f"/v1/models/{base}").status_code == 200


def test_everybodys_models_are_not_a_tenants_to_delete(api: ApiCase, plant: TuningPlant) -> None:
    assert api.delete("/v1/models/writer").status_code == 403


# --- one's own ----------------------------------------------------------------------------------


def test_nothing_of_it_exists_for_another_tenant(api: ApiCase, plant: TuningPlant) -> None:
    job_id, claim = train(api, plant)
    plant.checkpoint(claim, 10)
    stranger = api.new_tenant()
    for path in ("", "/events", "/events?stream=true", "/checkpoints", "/metrics", "?wait=1"):
        reply = api.client.get(f"{JOBS}/{job_id}{path}", headers=stranger)
        assert reply.status_code == 404, path
    for action in ("cancel", "pause", "resume"):
        reply = api.client.post(f"{JOBS}/{job_id}/{action}", headers=stranger)
        assert reply.status_code == 404, action
    assert api.client.get(JOBS, headers=stranger).json["data"] == []
    body = {"model": name_of(claim, 10), "training_file": upload(api, stranger)}
    assert api.client.post(JOBS, json=body, headers=stranger).status_code == 404
    body = {"model": "writer", "training_file": upload(api)}
    assert api.client.post(JOBS, json=body, headers=stranger).status_code == 404
    assert look(api, job_id)["status"] == "running"


def test_jobs_that_are_none_do_not_exist(api: ApiCase, plant: TuningPlant) -> None:
    for job_id in ("ftjob-none", "%00", "a" * 300):
        for path in ("", "/events", "/checkpoints", "/metrics"):
            assert api.get(f"{JOBS}/{job_id}{path}").status_code == 404
    other = api.submit()
    assert api.get(f"{JOBS}/{other}").status_code == 404
    assert api.post(f"{JOBS}/{other}/pause").status_code == 404


# --- OpenAI's own client ------------------------------------------------------------------------


def test_an_unmodified_client_finds_everything_in_its_place(
    api: ApiCase, plant: TuningPlant
) -> None:
    """Strictly: it refuses answers that are not as its types say."""
    client = openai.OpenAI(
        api_key=api.key["Authorization"].removeprefix("Bearer "),
        base_url="http://pressrun/v1",
        http_client=openai.DefaultHttpxClient(transport=httpx2.WSGITransport(app=api.app)),
        _strict_response_validation=True,
        max_retries=0,
    )
    examples = client.files.create(file=("x.jsonl", b"{}\n"), purpose="fine-tune")
    tuning = client.fine_tuning.jobs
    job = tuning.create(
        model="writer",
        training_file=examples.id,
        suffix="mine",
        seed=3,
        metadata={"a": "b"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        integrations=[{"type": "wandb", "wandb": {"project": "p"}}],
    )
    plant.open_training(plant.claim_one("up", pools=["upkeep"]).held)
    plant.dispatch("train")
    assert tuning.pause(job.id).status == "queued"
    assert tuning.resume(job.id).id == job.id
    plant.dispatch("train")
    claim = plant.claim_training()
    plant.report(claim.held, TrainingStep(1, 0.5, {"train_loss": 1.0}), progress=0.5)
    for step in (1, 2):
        plant.checkpoint(claim, step)
    plant.finish_training(claim)
    done = tuning.retrieve(job.id)
    assert (done.status, done.fine_tuned_model) == ("succeeded", name_of(claim))
    assert [one.id for one in tuning.list(metadata={"a": "b"}, limit=1)] == [job.id]
    assert [one.step_number for one in tuning.checkpoints.list(job.id, limit=1)] == [2, 1]
    told = list(tuning.list_events(job.id, limit=2))
    assert len(told) == len({event.id for event in told}) == len(plant.events(job.id))
    assert client.models.delete(name_of(claim)).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name_of(claim))
    with pytest.raises(openai.ConflictError):
        tuning.cancel(job.id)
