"""Responses and moderations through the API: what is accepted and refused, whose they are, and how
they look from queued to gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response

from api.caching import RecentCache
from api.objects import Job
from api.response_objects import DeletedResponse, ResponseItemList, ResponseObject
from shared.db.models import sync_catalog
from shared.models_catalog import ModelEntry
from shared.translation import responses
from tests.integration.media_case import (
    CATALOG,
    PAINTER,
    WRITER,
    Answer,
    MediaCase,
    media_fixture,
)

__all__ = ["media_fixture"]

ASKED: dict[str, Any] = {"model": WRITER, "input": "Name a river", "background": True}
GUARD = ModelEntry(id="a-guard", engine="classifier")
LISTED = ModelEntry(id="the-guard", engine="classifier", endpoints=["/v1/moderations"])


def said(text: str = "Rhine") -> Answer:
    """What a worker commits for a response; of which one does not matter here."""
    chat = {
        "created": 1_800_000_000,
        "model": WRITER,
        "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    made = responses.answered("resp_x", created_at=1, asked=ASKED, chat=chat)
    return Answer(lambda _ids: made)


def shown(media: MediaCase, response_id: str) -> dict[str, Any]:
    reply = media.get(f"/v1/responses/{response_id}")
    assert reply.status_code == 200, reply.text
    ResponseObject.model_validate(reply.json)
    Response.model_validate(reply.json)
    return dict(reply.json)


def submit(media: MediaCase, **members: Any) -> str:
    reply = media.post("/v1/responses", ASKED | members)
    assert reply.status_code == 200, reply.text
    ResponseObject.model_validate(reply.json)
    assert reply.json["status"] == "queued"
    return str(reply.json["id"])


def error(reply: Any) -> tuple[int, str, str | None]:
    return reply.status_code, reply.json["error"]["code"], reply.json["error"]["param"]


# --- responses ------------------------------------------------------------------------------------


def test_the_life_of_a_response(media: MediaCase) -> None:
    response_id = submit(media, instructions="Be brief.", metadata={"a": "b"})
    assert media.bell.rung == ["text"]
    queued = shown(media, response_id)
    assert (queued["status"], queued["instructions"], queued["metadata"]) == (
        "queued", "Be brief.", {"a": "b"},
    )  # fmt: skip
    claim = media.claim()
    assert claim is not None
    assert (claim.kind, claim.endpoint, claim.stage) == ("response", "/v1/responses", "generate")
    assert shown(media, response_id)["status"] == "in_progress"
    conflict = media.delete(f"/v1/responses/{response_id}")
    assert error(conflict) == (409, "conflict", None)
    media.finish(claim, said())
    done = shown(media, response_id)
    assert (done["status"], done["output"][0]["content"][0]["text"]) == ("completed", "Rhine")
    cancelled = media.post(f"/v1/responses/{response_id}/cancel")
    assert (cancelled.status_code, cancelled.json) == (200, done)
    job = media.get(f"/v1/jobs/{response_id}").json
    Job.model_validate(job)
    assert (job["kind"], job["state"]) == ("response", "succeeded")
    (listed,) = media.get("/v1/jobs?kind=response").json["data"]
    assert listed["id"] == response_id
    DeletedResponse.model_validate(media.delete(f"/v1/responses/{response_id}").json)
    for path in ("", "/input_items"):
        assert media.get(f"/v1/responses/{response_id}{path}").status_code == 404
    assert media.get(f"/v1/jobs/{response_id}").status_code == 404


def test_one_that_waits_is_cancelled_at_once(media: MediaCase) -> None:
    response_id = submit(media)
    for _ in range(2):
        reply = media.post(f"/v1/responses/{response_id}/cancel")
        assert (reply.status_code, reply.json["status"]) == (200, "cancelled")
    assert media.claim() is None


@pytest.mark.parametrize(("param", "code"), [("input", "invalid_prompt"), (None, "server_error")])
def test_a_failure_is_of_a_code_that_clients_know(
    media: MediaCase, param: str | None, code: str
) -> None:
    response_id = submit(media)
    media.finish_next(Answer(code="our_own", message="it is so", param=param))
    failed = shown(media, response_id)
    assert failed["status"] == "failed"
    assert failed["error"] == {
        "code": code, "type": "our_own", "message": "it is so", "param": param,
    }  # fmt: skip


def test_a_call_that_waits_answers_the_response(media: MediaCase) -> None:
    with media.worker(said("Elbe")):
        reply = media.post("/v1/responses", ASKED | {"background": False})
    assert reply.status_code == 200, reply.text
    assert reply.json["output"][0]["content"][0]["text"] == "Elbe"
    assert reply.headers["x-pressrun-job"].startswith("resp_")


def test_it_can_be_a_job_of_the_job_api(media: MediaCase) -> None:
    body = {"endpoint": "/v1/responses", "body": {"model": WRITER, "input": "x"}}
    reply = media.post("/v1/jobs", body)
    assert reply.status_code == 202, reply.text
    assert reply.json["id"].startswith("resp_")
    media.finish_next(said())
    assert shown(media, reply.json["id"])["status"] == "completed"
    estimate = media.post("/v1/jobs", body | {"dry_run": True}).json
    assert (estimate["kind"], estimate["model"]) == ("response", WRITER)
    assert estimate["input_tokens"] > 0


def test_the_same_key_makes_one_response(media: MediaCase) -> None:
    key = {"Idempotency-Key": "one"}
    first, again = (media.post("/v1/responses", ASKED, key) for _ in range(2))
    assert (first.status_code, first.json) == (again.status_code, again.json)
    other = media.post("/v1/responses", ASKED | {"input": "y"}, key)
    assert error(other)[:2] == (422, "idempotency_mismatch")


def test_a_conversation_is_kept_with_each_of_its_responses(media: MediaCase) -> None:
    first = submit(media, input="Name a \0 river")
    media.finish_next(said("Rhine"))
    second = submit(media, previous_response_id=first, input="Another")
    claim = media.claim()
    assert claim is not None
    turns = [(turn["role"], turn["content"]) for turn in json.loads(claim.spec)["input"]]
    assert turns == [("user", "Name a \0 river"), ("assistant", "Rhine"), ("user", "Another")]
    media.delete(f"/v1/responses/{first}")
    page = media.get(f"/v1/responses/{second}/input_items?limit=2").json
    ResponseItemList.model_validate(page)
    assert ([item["role"] for item in page["data"]], page["has_more"]) == (
        ["user", "assistant"], True,
    )  # fmt: skip
    rest = media.get(f"/v1/responses/{second}/input_items?after={page['last_id']}").json
    assert ([item["role"] for item in rest["data"]], rest["has_more"]) == (["user"], False)
    wrong = media.get(f"/v1/responses/{second}/input_items?after={second}")
    assert error(wrong) == (400, "invalid_request", "after")


def test_a_conversation_has_an_end(database_url: str, tmp_path: Path) -> None:
    media = MediaCase(database_url, tmp_path, max_body_bytes=2_000)
    try:
        first = submit(media, input="x" * 1_500)
        media.finish_next(said())
        reply = media.post(
            "/v1/responses", ASKED | {"previous_response_id": first, "input": "y" * 600}
        )
        assert error(reply) == (400, "context_length_exceeded", "previous_response_id")
    finally:
        media.close()


@pytest.mark.parametrize("name", ["resp_" + "0" * 26, "a b", "\0", "job_" + "0" * 26])
def test_a_previous_response_that_is_none(media: MediaCase, name: str) -> None:
    reply = media.post("/v1/responses", ASKED | {"previous_response_id": name})
    assert error(reply) == (404, "not_found", "previous_response_id")


def test_one_goes_on_only_from_an_answer_of_ones_own(media: MediaCase) -> None:
    response_id = submit(media)
    unanswered = media.post("/v1/responses", ASKED | {"previous_response_id": response_id})
    assert error(unanswered) == (409, "conflict", "previous_response_id")
    media.finish_next(said())
    chat = {"endpoint": "/v1/chat/completions",
            "body": {"model": WRITER, "messages": [{"role": "user", "content": "x"}]}}  # fmt: skip
    job_id = media.post("/v1/jobs", chat).json["id"]
    media.finish_next(Answer(lambda _ids: {}))
    other = media.post("/v1/responses", ASKED | {"previous_response_id": job_id})
    assert error(other) == (404, "not_found", "previous_response_id")
    assert media.get(f"/v1/responses/{job_id}").status_code == 404
    media.key = media.new_tenant()
    stolen = media.post("/v1/responses", ASKED | {"previous_response_id": response_id})
    assert error(stolen) == (404, "not_found", "previous_response_id")


def test_a_response_is_its_tenants_alone(media: MediaCase) -> None:
    response_id = submit(media)
    owner, media.key = media.key, media.new_tenant()
    path = f"/v1/responses/{response_id}"
    for reply in (
        media.get(path), media.get(f"{path}/input_items"), media.post(f"{path}/cancel"),
        media.delete(path),
    ):  # fmt: skip
        assert error(reply) == (404, "not_found", None)
    media.key = owner
    assert shown(media, response_id)["status"] == "queued"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"tools": [{"type": "web_search"}]}, (400, "unsupported_parameter", "tools")),
        ({"model": PAINTER}, (404, "model_not_found", "model")),
        ({"model": None}, (400, "invalid_request", "model")),
        ({"input": None}, (400, "invalid_request", "input")),
        ({"background": "yes"}, (400, "invalid_request", "background")),
    ],
)
def test_what_cannot_be_asked(
    media: MediaCase, members: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert error(media.post("/v1/responses", ASKED | members)) == expected
    assert media.get("/v1/jobs").json["data"] == []


# --- moderations ----------------------------------------------------------------------------------

VERDICT = Answer(lambda _ids: {"id": "modr-1", "model": "m", "results": []})


@pytest.fixture
def guarded(database_url: str, tmp_path: Path) -> Iterator[MediaCase]:
    case = MediaCase(database_url, tmp_path)
    with case.begin() as connection:
        sync_catalog(connection, [*CATALOG, GUARD, LISTED])
    yield case
    case.close()


def moderated_by(media: MediaCase, **members: Any) -> str:
    """The model that the job of a moderation is for."""
    with media.worker(VERDICT) as seen:
        reply = media.post("/v1/moderations", {"input": "x"} | members)
    assert reply.status_code == 200, reply.text
    assert (seen[0].kind, seen[0].endpoint) == ("generate", "/v1/moderations")
    assert json.loads(seen[0].spec)["model"] == seen[0].model
    return str(seen[0].model)


def test_who_moderates(guarded: MediaCase) -> None:
    assert moderated_by(guarded) == LISTED.id
    assert moderated_by(guarded, model=None) == LISTED.id
    assert moderated_by(guarded, model=GUARD.id) == GUARD.id
    alias = {"name": "guard@production", "model": GUARD.id}
    assert guarded.post("/v1/model_aliases", alias).status_code == 201
    assert moderated_by(guarded, model="guard@production") == GUARD.id
    wrong = guarded.post("/v1/moderations", {"input": "x", "model": WRITER})
    assert error(wrong) == (404, "model_not_found", "model")


def test_a_setting_says_who_moderates(database_url: str, tmp_path: Path) -> None:
    media = MediaCase(database_url, tmp_path, moderation_model=GUARD.id)
    try:
        with media.begin() as connection:
            sync_catalog(connection, [*CATALOG, GUARD, LISTED])
        assert moderated_by(media) == GUARD.id
        with media.begin() as connection:
            sync_catalog(connection, [*CATALOG, LISTED])
        media.services.models._recent = RecentCache(1)  # as after two seconds
        reply = media.post("/v1/moderations", {"input": "x"})
        assert error(reply) == (404, "moderation_not_configured", "model")
    finally:
        media.close()


def test_nobody_moderates_unless_somebody_is_told_to(media: MediaCase) -> None:
    reply = media.post("/v1/moderations", {"input": "x"})
    assert error(reply) == (404, "moderation_not_configured", "model")
    assert "PRESSRUN_MODERATION_MODEL" in reply.json["error"]["message"]
    job = media.post("/v1/jobs", {"endpoint": "/v1/moderations", "body": {"input": "x"}})
    assert error(job) == (404, "moderation_not_configured", "body.model")
