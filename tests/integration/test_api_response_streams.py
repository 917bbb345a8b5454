"""Responses that are told as they happen: the API against a worker whose part the test plays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from werkzeug.test import TestResponse

from api import streaming
from shared.states import ShardState
from shared.translation import responses
from tests.integration.api_case import MODEL, ApiCase, api_fixture
from tests.integration.test_api_jobs import finish
from tests.integration.test_api_streaming import Attempt

__all__ = ["api_fixture"]

ASKED: dict[str, Any] = {"model": MODEL, "input": "Name a river", "stream": True}
TEXT = "The Rhine, of course"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams begin without a first word, since the test is the worker, too."""
    monkeypatch.setattr(streaming, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.05)


class Stream:
    """One open stream; ``next`` blocks until it tells an event."""

    def __init__(self, reply: TestResponse) -> None:
        assert reply.status_code == 200, reply.json
        assert reply.content_type.startswith("text/event-stream")
        self.reply = reply
        self.job_id = reply.headers["x-pressrun-job"]
        self._events = self._read()

    def _read(self) -> Iterator[dict[str, Any]]:
        for said in self.reply.iter_encoded():
            for block in said.decode().split("\n\n")[:-1]:
                if not block.startswith(":"):
                    yield json.loads(block.split("data: ", 1)[1])

    def next(self) -> dict[str, Any]:
        return next(self._events)

    def until(self, kind: str) -> dict[str, Any]:
        return next(event for event in self._events if event["type"] == kind)

    def rest(self) -> list[dict[str, Any]]:
        return list(self._events)


def create(api: ApiCase, **members: Any) -> Stream:
    return Stream(api.app.test_client().post("/v1/responses", json=ASKED | members,
                                             headers=api.key))  # fmt: skip


def follow(api: ApiCase, response_id: str, after: int | None = None) -> Stream:
    query = "" if after is None else f"&starting_after={after}"
    return Stream(api.get(f"/v1/responses/{response_id}?stream=true{query}"))


def answer(api: ApiCase, attempt: Attempt, response_id: str, reason: str = "stop") -> None:
    chat = {
        "created": 1_800_000_000,
        "model": MODEL,
        "choices": [{"message": {"content": TEXT}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    made = responses.answered(response_id, created_at=1, asked=ASKED, chat=chat)
    with api.begin() as connection:
        finish(
            connection, attempt.session, attempt.held, ShardState.SUCCEEDED,
            result=json.dumps(made, separators=(",", ":")),
        )  # fmt: skip


def test_an_answer_is_told_as_it_is_said(api: ApiCase) -> None:
    stream = create(api, background=False)
    assert [stream.next()["type"] for _ in range(2)] == ["response.created", "response.in_progress"]
    attempt = Attempt(api)
    attempt.say(TEXT[:9], 0)
    assert stream.until("response.output_text.delta")["delta"] == TEXT[:9]
    answer(api, attempt, stream.job_id)
    rest = stream.rest()
    assert rest[0]["delta"] == TEXT[9:]
    assert rest[-1]["type"] == "response.completed"
    assert rest[-1]["response"] == api.get(f"/v1/responses/{stream.job_id}").json


def test_who_comes_back_goes_on_where_they_were(api: ApiCase) -> None:
    stream = create(api, background=True)
    assert stream.next()["response"]["status"] == "queued"
    attempt = Attempt(api)
    attempt.say(TEXT[:9], 0)
    seen = stream.until("response.output_text.delta")["sequence_number"]
    stream.reply.close()
    again = follow(api, stream.job_id, seen)
    attempt.say(TEXT[9:12], 9)
    told = again.next()
    assert (told["delta"], told["sequence_number"]) == (TEXT[9:12], seen + 3)
    answer(api, attempt, stream.job_id)
    assert again.next()["delta"] == TEXT[12:]
    last = again.rest()[-1]
    assert last["type"] == "response.completed"
    # Also when all is over, and what was said on the way is gone.
    with api.begin() as connection:
        connection.execute(text("TRUNCATE deltas"))
    assert follow(api, stream.job_id, seen + 3).next()["delta"] == TEXT[12:]
    assert follow(api, stream.job_id, last["sequence_number"]).rest() == []
    whole = follow(api, stream.job_id).rest()
    assert [event["type"] for event in whole[:2]] == ["response.created", "response.in_progress"]
    assert whole[-1] == last


def test_one_that_was_made_without_a_stream_can_be_followed(api: ApiCase) -> None:
    made = api.post("/v1/responses", ASKED | {"stream": False, "background": True}).json
    stream = follow(api, made["id"])
    assert stream.next()["response"] == made
    attempt = Attempt(api)
    answer(api, attempt, made["id"], reason="length")
    assert stream.rest()[-1]["type"] == "response.incomplete"


def test_a_failure_is_told_by_the_stream_once_it_has_begun(api: ApiCase) -> None:
    for background in (True, False):
        stream = create(api, background=background)
        Attempt(api).fail("too_odd", "it is odd")
        told = stream.until("response.failed")
        assert told["response"]["error"]["type"] == "too_odd"
        assert told["response"] == api.get(f"/v1/responses/{stream.job_id}").json
        assert stream.rest() == []


def test_a_response_that_is_cancelled_says_so(api: ApiCase) -> None:
    stream = create(api, background=True)
    assert stream.next()["type"] == "response.created"
    api.post(f"/v1/responses/{stream.job_id}/cancel")
    assert stream.until("response.failed")["response"]["status"] == "cancelled"


def test_a_failed_response_is_no_stream_for_who_repeats_the_call(api: ApiCase) -> None:
    """It failed before anything was said: an ordinary error. In the background it is a response
    that failed."""
    for background in (False, True):
        body, headers = ASKED | {"background": background}, {"Idempotency-Key": f"{background}"}
        first = Stream(api.post("/v1/responses", body, headers))
        Attempt(api).fail("too_odd", "it is odd")
        assert first.rest()[-1]["type"] == "response.failed"
        again = api.post("/v1/responses", body, headers)
        if background:
            assert Stream(again).rest()[-1]["response"]["id"] == first.job_id
        else:
            assert (again.status_code, again.json["error"]["code"]) == (500, "too_odd")


def test_what_is_asked_wrongly(api: ApiCase) -> None:
    made = api.post("/v1/responses", ASKED | {"stream": False, "background": True}).json
    path = f"/v1/responses/{made['id']}"

    def refused(reply: TestResponse) -> tuple[int, str | None]:
        return reply.status_code, reply.json["error"]["param"]

    assert api.get(f"{path}?starting_after=3").json == made
    assert refused(api.get(f"{path}?stream=true&starting_after=-1")) == (400, "starting_after")
    assert refused(api.get(f"{path}?stream=perhaps")) == (400, "stream")
    obfuscated = ASKED | {"stream_options": {"include_obfuscation": True}}
    assert refused(api.post("/v1/responses", obfuscated)) == (
        400, "stream_options.include_obfuscation",
    )  # fmt: skip
    plain = ASKED | {"stream": False, "stream_options": {}}
    assert refused(api.post("/v1/responses", plain)) == (400, "stream_options")
    job = {"endpoint": "/v1/responses", "body": ASKED}
    assert refused(api.post("/v1/jobs", job)) == (400, "body.stream")
    other = api.new_tenant()
    assert api.app.test_client().get(f"{path}?stream=true", headers=other).status_code == 404
