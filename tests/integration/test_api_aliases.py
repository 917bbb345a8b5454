"""Aliases over HTTP: their routes, and their use wherever a request names a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from werkzeug.test import TestResponse

from api import alias_objects, objects
from api.model_job_objects import Evaluation
from api.model_objects import Model, ModelList
from shared.db.models import sync_catalog
from shared.lifecycle import working
from shared.models_catalog import ModelEntry
from shared.specs.model_jobs import EvaluationSpec
from tests.integration.api_case import MODEL, ApiCase, make_settings
from tests.integration.protocol import generation_end

ALIASES = "/v1/model_aliases"
NAME = "news-writer@production"
ONE = f"{ALIASES}/{NAME}"
SECOND, PAINTER = "writer-2", "painter"
CHAT_BODY = {"model": NAME, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[ApiCase]:
    case = ApiCase(make_settings(database_url, tmp_path, key_cache_seconds=60, direct_seconds=0.1))
    texts = ["/v1/completions", "/v1/chat/completions"]
    with case.begin() as connection:
        sync_catalog(
            connection,
            [
                ModelEntry(id=MODEL, engine="fake", endpoints=texts),
                ModelEntry(id=SECOND, engine="fake", endpoints=texts),
                ModelEntry(id=PAINTER, engine="image"),
                ModelEntry(id="speaker", engine="speech"),
                ModelEntry(id="composer", engine="composer"),
            ],
        )
    yield case
    case.close()


def create(api: ApiCase, model: str | None = MODEL, name: str = NAME) -> TestResponse:
    body = {"name": name} if model is None else {"name": name, "model": model}
    return api.post(ALIASES, body)


def move(api: ApiCase, model: str, **more: Any) -> TestResponse:
    return api.post(ONE, {"model": model, **more})


def refused(reply: TestResponse, status: int, code: str, param: str | None = None) -> None:
    assert (reply.status_code, reply.json["error"]["code"]) == (status, code), reply.json
    assert reply.json["error"]["param"] == param


# --- the routes -----------------------------------------------------------------------------------


def test_an_alias_from_its_making_to_its_end(api: ApiCase) -> None:
    made = create(api)
    assert made.status_code == 201
    alias_objects.ModelAlias.model_validate(made.json)
    assert (made.json["id"], made.json["model"], made.json["version"]) == (NAME, MODEL, 1)
    moved = move(api, SECOND, expected_model=MODEL)
    assert moved.status_code == 200
    assert (moved.json["model"], moved.json["version"]) == (SECOND, 2)
    assert api.get(ONE).json == moved.json
    back = api.post(f"{ONE}/rollback")
    assert (back.status_code, back.json["model"], back.json["version"]) == (200, MODEL, 3)
    history = api.get(f"{ONE}/history").json
    alias_objects.ModelAliasMoveList.model_validate(history)
    assert [(one["version"], one["to_model"], one["by"]) for one in history["data"]] == [
        (3, MODEL, "rollback"),
        (2, SECOND, "hand"),
        (1, MODEL, "hand"),
    ]
    gone = api.delete(ONE)
    assert gone.json == {"id": NAME, "object": "model_alias", "deleted": True}
    for reply in (api.get(ONE), api.get(f"{ONE}/history"), api.delete(ONE), move(api, SECOND),
                  api.post(f"{ONE}/rollback")):  # fmt: skip
        refused(reply, 404, "not_found")


def test_lists_come_by_the_page(api: ApiCase) -> None:
    names = [f"writer@{letter}" for letter in "abc"]
    for name in reversed(names):
        create(api, name=name)
    first = api.get(f"{ALIASES}?limit=2").json
    alias_objects.ModelAliasList.model_validate(first)
    assert ([one["id"] for one in first["data"]], first["has_more"]) == (names[:2], True)
    rest = api.get(f"{ALIASES}?limit=2&after={first['last_id']}").json
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (names[2:], False)
    for model in (SECOND, MODEL):
        api.post(f"{ALIASES}/writer@a", {"model": model})
    page = api.get(f"{ALIASES}/writer@a/history?limit=2").json
    assert page["has_more"]
    page = api.get(f"{ALIASES}/writer@a/history?limit=2&after={page['last_id']}").json
    assert [one["version"] for one in page["data"]] == [1]
    refused(api.get(f"{ALIASES}?after=x"), 400, "invalid_request", "after")
    refused(api.get(f"{ALIASES}/writer@a/history?after=x"), 400, "invalid_request", "after")


def test_a_move_from_another_holder_is_a_conflict_that_is_not_retried(api: ApiCase) -> None:
    create(api)
    reply = move(api, SECOND, expected_model=SECOND)
    refused(reply, 409, "conflict", "expected_model")
    assert reply.headers["x-should-retry"] == "false"
    refused(move(api, SECOND, expected_model=None), 409, "conflict", "expected_model")
    refused(
        api.post(f"{ONE}/rollback", {"expected_model": SECOND}), 409, "conflict", "expected_model"
    )
    refused(api.post(f"{ONE}/rollback"), 409, "conflict")


def test_what_can_be_no_alias_is_refused_by_field(api: ApiCase) -> None:
    for name in (MODEL, "ft:writer@x", "Writer@x", "writer", "w@x\0", "w@" + "x" * 40):
        refused(create(api, name=name), 400, "invalid_request", "name")
    assert create(api).status_code == 201
    refused(create(api, SECOND), 409, "conflict", "name")
    for model in ("nothing", NAME, "\0"):
        refused(create(api, model, name="other@x"), 404, "model_not_found", "model")
        refused(move(api, model), 404, "model_not_found", "model")
    refused(api.post(ONE, {}), 400, "invalid_request", "model")
    refused(move(api, SECOND, to="x"), 400, "invalid_request", "to")
    refused(api.get(f"{ALIASES}/other@x"), 404, "not_found")  # nothing of it was kept


@pytest.mark.parametrize(
    "name", ["x", "%00@b", "a@b%0a", "A@b", "a" * 200 + "@b", "%ff@b", "a@b@c"]
)
def test_odd_names_in_addresses_do_not_exist(api: ApiCase, name: str) -> None:
    for path in (f"{ALIASES}/{name}", f"{ALIASES}/{name}/history"):
        assert api.get(path).status_code == 404
    assert api.delete(f"{ALIASES}/{name}").status_code == 404
    assert api.post(f"{ALIASES}/{name}", {"model": MODEL}).status_code == 404


def test_another_tenants_aliases_do_not_exist(api: ApiCase) -> None:
    create(api)
    api.key, mine = api.new_tenant(), api.key
    for reply in (api.get(ONE), api.get(f"{ONE}/history"), move(api, SECOND), api.delete(ONE),
                  api.post(f"{ONE}/rollback")):  # fmt: skip
        refused(reply, 404, "not_found")
    assert api.get(ALIASES).json["data"] == []
    refused(api.post("/v1/chat/completions", CHAT_BODY), 404, "model_not_found", "model")
    refused(api.get(f"/v1/models/{NAME}"), 404, "model_not_found", "model")
    assert create(api, SECOND).status_code == 201  # the name is free for them
    api.key = mine
    assert api.get(ONE).json["model"] == MODEL


# --- among the models -----------------------------------------------------------------------------


def test_aliases_are_listed_and_looked_up_among_the_models(api: ApiCase) -> None:
    create(api)
    create(api, None, name="empty@x")
    listed = api.get("/v1/models").json
    ModelList.model_validate(listed)
    named = {one["id"]: one.get("alias_of") for one in listed["data"]}
    assert named[NAME] == MODEL
    assert named[MODEL] is None
    assert "empty@x" not in named
    one = api.get(f"/v1/models/{NAME}").json
    Model.model_validate(one)
    assert (one["id"], one["alias_of"]) == (NAME, MODEL)
    assert one["endpoints"] == api.get(f"/v1/models/{MODEL}").json["endpoints"]
    refused(api.get("/v1/models/empty@x"), 404, "model_not_found", "model")
    refused(api.delete(f"/v1/models/{NAME}"), 404, "model_not_found", "model")


def test_a_model_of_ones_own_is_not_deleted_while_it_holds_an_alias(api: ApiCase) -> None:
    tenant = tenant_of(api)
    with api.begin() as connection:
        connection.execute(
            text("INSERT INTO models (id, tenant_id, pool, engine, source, endpoints)"
                 " VALUES ('ft:own', :tenant, 'text', 'fake', '', '{/v1/completions}')"),
            {"tenant": tenant},
        )  # fmt: skip
    create(api, "ft:own")
    reply = api.delete("/v1/models/ft:own")
    refused(reply, 409, "conflict", "model")
    assert NAME in reply.json["error"]["message"]
    move(api, SECOND)
    assert api.delete("/v1/models/ft:own").status_code == 200
    refused(api.post(f"{ONE}/rollback"), 409, "conflict")


def tenant_of(api: ApiCase) -> str:
    """The tenant of ``api.key``."""
    job_id = api.submit()
    with api.begin() as connection:
        query = text("SELECT tenant_id FROM jobs WHERE id = :id")
        return str(connection.execute(query, {"id": job_id}).scalar_one())


# --- in requests ----------------------------------------------------------------------------------


def test_a_job_keeps_the_model_that_its_alias_stood_for(api: ApiCase) -> None:
    create(api)
    accepted = api.post("/v1/jobs", {"endpoint": "/v1/chat/completions", "body": CHAT_BODY}).json
    assert (accepted["model"], accepted["alias"]) == (MODEL, NAME)
    move(api, SECOND)
    shown = api.get(f"/v1/jobs/{accepted['id']}").json
    objects.Job.model_validate(shown)
    assert (shown["model"], shown["alias"], shown["models"]) == (MODEL, NAME, {NAME: MODEL})
    later = api.post("/v1/jobs", {"endpoint": "/v1/chat/completions", "body": CHAT_BODY}).json
    assert later["model"] == SECOND  # at once, though models are cached
    with api.begin() as connection:
        worker = api.open_session(connection)
        claims = working.claim(
            connection, session_id=worker, pools=["text"], max_shards=9, max_rows=9
        )
        assert [claim.model for claim in claims] == [MODEL, SECOND]
        assert [json.loads(claim.spec)["model"] for claim in claims] == [MODEL, SECOND]
        ends = [generation_end(claim.held) for claim in claims]
        working.finish_generations(connection, worker, ends)
        used = connection.execute(text("SELECT model FROM usage ORDER BY shard_id")).scalars()
        assert list(used) == [MODEL, SECOND]
    listed = {one["id"]: one for one in api.get("/v1/jobs").json["data"]}
    assert listed[accepted["id"]]["alias"] == NAME


def test_under_an_idempotency_key_the_first_model_stays(api: ApiCase) -> None:
    create(api)
    once = {"Idempotency-Key": "k"}
    body = {"endpoint": "/v1/chat/completions", "body": CHAT_BODY}
    first = api.post("/v1/jobs", body, once).json
    move(api, SECOND)
    again = api.post("/v1/jobs", body, once).json
    assert (again["id"], again["model"], again["alias"]) == (first["id"], MODEL, NAME)


def test_a_direct_call_names_an_alias(api: ApiCase) -> None:
    create(api)
    reply = api.post("/v1/chat/completions", CHAT_BODY)
    assert reply.status_code == 504  # nobody works here
    job = api.get(f"/v1/jobs/{reply.headers['x-pressrun-job']}").json
    assert (job["model"], job["alias"]) == (MODEL, NAME)


def test_an_alias_without_a_holder_or_for_another_endpoint_serves_nothing(api: ApiCase) -> None:
    create(api, None)
    refused(api.post("/v1/chat/completions", CHAT_BODY), 404, "model_not_found", "model")
    create(api, PAINTER, name="painter@x")
    body = CHAT_BODY | {"model": "painter@x"}
    refused(api.post("/v1/chat/completions", body), 404, "model_not_found", "model")
    job = {"endpoint": "/v1/chat/completions", "body": body}
    refused(api.post("/v1/jobs", job), 404, "model_not_found", "body.model")


def test_a_withdrawn_holder_serves_nothing_until_the_alias_moves(api: ApiCase) -> None:
    create(api, SECOND)
    kept = [ModelEntry(id=MODEL, engine="fake", endpoints=["/v1/chat/completions"])]
    with api.begin() as connection:
        sync_catalog(connection, kept)
    refused(api.post("/v1/chat/completions", CHAT_BODY), 404, "model_not_found", "model")
    assert NAME not in {one["id"] for one in api.get("/v1/models").json["data"]}
    assert move(api, MODEL).status_code == 200
    assert api.post("/v1/chat/completions", CHAT_BODY).status_code == 504


def test_a_campaign_names_aliases_for_each_of_its_models(api: ApiCase) -> None:
    create(api)
    create(api, PAINTER, name="painter@x")
    brief = {
        "model": NAME,
        "image_model": "painter@x",
        "product": "Stillwater Two",
        "outputs": ["copy", "pictures"],
        "languages": ["en"],
    }
    made = api.post("/v1/campaigns", brief)
    assert made.status_code == 202, made.json
    assert (made.json["model"], made.json["alias"]) == (MODEL, NAME)
    move(api, SECOND)
    job = api.get(f"/v1/jobs/{made.json['id']}").json
    assert job["models"] == {NAME: MODEL, "painter@x": PAINTER}
    steps = api.get(f"/v1/campaigns/{made.json['id']}/steps?limit=100").json["data"]
    assert {step["model"] for step in steps} == {MODEL, PAINTER, None}


def test_a_video_names_an_alias(api: ApiCase) -> None:
    create(api, "composer", name="films@x")
    made = api.post("/v1/videos", {"model": "films@x", "prompt": "A fox runs."}).json
    assert (made["model"], made["alias"]) == ("composer", "films@x")


def test_a_fine_tuning_starts_from_the_model_that_holds_the_alias(api: ApiCase) -> None:
    create(api)
    examples = api.upload(purpose="fine-tune").json["id"]
    job = api.post("/v1/fine_tuning/jobs", {"model": NAME, "training_file": examples}).json
    assert (job["model"], job["alias"], job["lineage"]) == (MODEL, NAME, [MODEL])
    move(api, SECOND)
    job = api.get(f"/v1/fine_tuning/jobs/{job['id']}").json
    assert (job["model"], job["alias"]) == (MODEL, NAME)
    with api.begin() as connection:
        query = text("SELECT model, spec ->> 'model' FROM jobs WHERE id = :id")
        assert connection.execute(query, {"id": job["id"]}).one() == (MODEL, MODEL)
    refused(
        api.post("/v1/fine_tuning/jobs", {"model": "no@x", "training_file": examples}),
        404,
        "model_not_found",
        "model",
    )


@pytest.mark.parametrize("label", [r"\u0000", r"\ud800", r"\ud83d\ude00"])
def test_labels_that_postgres_does_not_read_hide_nothing_but_the_alias(
    api: ApiCase, label: str
) -> None:
    """What a fine-tuning has found in its data stands beside the alias that it was asked for."""
    examples = api.upload(purpose="fine-tune").json["id"]
    job = api.post("/v1/fine_tuning/jobs", {"model": MODEL, "training_file": examples}).json
    with api.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET detail = CAST(:detail AS json) WHERE id = :id"),
            {"id": job["id"], "detail": f'{{"data": {{"labels": ["{label}"]}}, "alias": "a@b"}}'},
        )
    shown = api.get(f"/v1/jobs/{job['id']}").json
    objects.Job.model_validate(shown)
    assert (shown["model"], shown["alias"]) == (MODEL, None)
    assert api.get(f"/v1/fine_tuning/jobs/{job['id']}").json["alias"] == "a@b"


# --- gates ----------------------------------------------------------------------------------------


def gate(api: ApiCase, **changed: Any) -> dict[str, Any]:
    examples = api.upload(purpose="fine-tune").json["id"]
    return {"evaluation_file": examples, "metric": "loss"} | changed


def test_a_gate_is_an_evaluation_of_both_models(api: ApiCase) -> None:
    create(api)
    asked = gate(api, min_improvement=0.125, max_examples=7)
    reply = move(api, SECOND, gate=asked, expected_model=MODEL)
    assert reply.status_code == 202, reply.json
    assert (reply.json["model"], reply.json["version"]) == (MODEL, 1)
    job_id = reply.json["gate_job_id"]
    assert "train" in api.bell.rung
    with api.begin() as connection:
        job = connection.execute(
            text("SELECT kind, spec, detail FROM jobs WHERE id = :id"), {"id": job_id}
        ).one()
    spec = EvaluationSpec.model_validate(job.spec)
    assert (job.kind, spec.models, spec.max_examples) == ("evaluation", [SECOND, MODEL], 7)
    assert (spec.file, spec.metric) == (asked["evaluation_file"], "loss")
    kept = job.detail["gate"]
    assert (kept["alias"], kept["candidate"], kept["holder"]) == (NAME, SECOND, MODEL)
    assert kept["min_improvement"] == 0.125


def test_what_a_gate_decided_is_told_by_the_history_and_by_the_evaluation(api: ApiCase) -> None:
    create(api)
    path = f"/v1/evaluations/{move(api, SECOND, gate=gate(api)).json['gate_job_id']}"
    waiting = api.get(path).json
    Evaluation.model_validate(waiting)
    assert (waiting["gate"]["alias"], waiting["gate"]["outcome"]) == (NAME, None)
    with api.begin() as connection:
        worker = api.open_session(connection)
        [claim] = working.claim(
            connection, session_id=worker, pools=["train"], max_shards=1, max_rows=1
        )
        measured = [
            working.ModelMeasured(model=model, values={"loss": loss}, examples=2)
            for model, loss in ((SECOND, 0.25), (MODEL, 0.75))
        ]
        end = working.EvaluationEnd(measured=measured)
        assert working.finish_evaluation(connection, worker, claim.held, end)
    told = api.get(path).json
    Evaluation.model_validate(told)
    assert told["gate"] == {
        "alias": NAME,
        "candidate": SECOND,
        "holder": MODEL,
        "min_improvement": 0.0,
        "outcome": "moved",
        "reason": "better",
        "holder_value": 0.75,
        "candidate_value": 0.25,
    }
    assert api.get(ONE).json["model"] == SECOND
    history = api.get(f"{ONE}/history").json
    alias_objects.ModelAliasMoveList.model_validate(history)
    newest = history["data"][0]
    assert (newest["by"], newest["job_id"], newest["version"]) == ("gate", claim.job_id, 2)
    events = api.get(f"/v1/jobs/{claim.job_id}/events").json["data"]
    assert [one["data"]["outcome"] for one in events if one["type"] == "evaluation.gate"] == [
        "moved"
    ]


def test_a_gate_is_begun_once_under_a_key(api: ApiCase) -> None:
    create(api)
    once = {"Idempotency-Key": "k"}
    body = {"model": SECOND, "gate": gate(api)}
    first, again = (api.post(ONE, body, once) for _ in range(2))
    assert first.status_code == again.status_code == 202
    assert first.json == again.json
    refused(
        api.post(ONE, body | {"model": PAINTER}, once),
        422,
        "idempotency_mismatch",
        "Idempotency-Key",
    )


def test_a_gate_that_cannot_be_begun_leaves_nothing_behind(api: ApiCase) -> None:
    create(api)
    fields = "gate.evaluation_file"
    refused(move(api, SECOND, gate=gate(api, evaluation_file="file-x")), 404, "not_found", fields)
    refused(move(api, SECOND, gate=gate(api, evaluation_file="\0")), 404, "not_found", fields)
    unknown = gate(api, metric="beauty")
    refused(move(api, SECOND, gate=unknown), 400, "invalid_request", "gate.metric")
    refused(move(api, SECOND, gate={}), 400, "invalid_request", "gate.evaluation_file")
    refused(move(api, PAINTER, gate=gate(api)), 400, "model_not_measurable", "model")
    refused(move(api, MODEL, gate=gate(api)), 400, "invalid_request", "model")
    refused(move(api, "nothing", gate=gate(api)), 404, "model_not_found", "model")
    later = move(api, SECOND, gate=gate(api), expected_model=SECOND)
    refused(later, 409, "conflict", "expected_model")
    assert api.get(ONE).json["gate_job_id"] is None
    assert api.get("/v1/jobs?kind=evaluation").json["data"] == []


def test_another_tenants_file_judges_nothing(api: ApiCase) -> None:
    create(api)
    mine, api.key = api.key, api.new_tenant()
    theirs = gate(api)
    api.key = mine
    refused(move(api, SECOND, gate=theirs), 404, "not_found", "gate.evaluation_file")
