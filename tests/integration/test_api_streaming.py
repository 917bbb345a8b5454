"""Direct calls that are read along: the API against a worker whose part the test plays."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api import streaming
from api.chunks import DONE
from api.event_stream import HEARTBEAT
from shared.db.streams import AT_ONCE, Place, forget_deltas, read_deltas
from shared.lifecycle import working
from shared.lifecycle.working import Held, NewDelta, ReleaseReason
from shared.states import ShardState
from tests.integration.api_case import MODEL, ApiCase, api_fixture, make_settings
from tests.integration.test_api_jobs import claim, finish

__all__ = ["api_fixture"]

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hello"}],
    "stream": True,
}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
PATIENCE_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams begin without a first word, since the test is the worker, too."""
    monkeypatch.setattr(streaming, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.05)


class Call:
    """One open stream; ``next`` blocks until it says something but a heartbeat."""

    def __init__(
        self,
        api: ApiCase,
        body: dict[str, Any] | None = None,
        *,
        path: str = CHAT,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.reply = api.app.test_client().post(
            path, json=BODY | (body or {}), headers=api.key | (headers or {})
        )
        assert self.reply.status_code == 200, self.reply.json
        assert self.reply.content_type.startswith("text/event-stream")
        self.job_id = self.reply.headers["x-pressrun-job"]
        self._said = (said.decode() for said in self.reply.iter_encoded())
        self._lines = self._split()

    def _split(self) -> Iterator[str]:
        for said in self._said:
            assert said.endswith("\n\n")
            for line in said.removesuffix("\n\n").split("\n\n"):
                yield line + "\n\n"

    def next(self) -> Any:
        for line in self._lines:
            if line != HEARTBEAT:
                return None if line == DONE else json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended")

    def heartbeat(self) -> None:
        assert next(self._lines) == HEARTBEAT

    def text(self) -> str:
        """The next word."""
        choice = self.next()["choices"][0]
        return str(choice["delta"]["content"])

    def rest(self) -> list[Any]:
        return [json.loads(line[6:]) for line in self._lines if line not in {HEARTBEAT, DONE}]

    def close(self) -> None:
        self.reply.close()


class Attempt:
    """A worker that holds the next shard of the pool."""

    def __init__(self, api: ApiCase) -> None:
        self._api = api
        self._seq = 0
        with api.begin() as connection:
            self.session = api.open_session(connection)
            self.held: Held = claim(connection, self.session).held

    def say(self, said: str, at: int, choice: int = 0) -> None:
        self.tell(self._seq, [[choice, at, said]])

    def tell(self, seq: int, pieces: list[Any]) -> None:
        with self._api.begin() as connection:
            delta = NewDelta(self.held, seq, json.dumps(pieces))
            working.add_deltas(connection, self.session, [delta])
        self._seq = seq + 1

    def lose(self) -> None:
        """Gives the shard back, as another attempt's to make."""
        with self._api.begin() as connection:
            working.release(connection, self.session, self.held, ReleaseReason.PREEMPTED)

    def succeed(self, *texts: str, **more: Any) -> None:
        choices = [
            {"index": i, "message": {"role": "assistant", "content": t}, "finish_reason": "stop"}
            for i, t in enumerate(texts)
        ]
        result = {"id": "x", "choices": choices, "usage": USAGE, **more}
        with self._api.begin() as connection:
            finish(
                connection, self.session, self.held, ShardState.SUCCEEDED, result=json.dumps(result)
            )

    def fail(self, code: str, message: str) -> None:
        with self._api.begin() as connection:
            finish(
                connection, self.session, self.held, ShardState.FAILED, error_code=code,
                error_message=message,
            )  # fmt: skip


def role_of(call: Call) -> str:
    return str(call.next()["choices"][0]["delta"]["role"])


def job(api: ApiCase, job_id: str) -> dict[str, Any]:
    return dict(api.get(f"/v1/jobs/{job_id}").json)


def deltas_n(api: ApiCase) -> int:
    with api.begin() as connection:
        return int(connection.execute(text("SELECT count(*) FROM deltas")).scalar_one())


# --- the good way --------------------------------------------------------------------------------


def test_words_come_as_they_are_said_and_the_rest_with_the_result(api: ApiCase) -> None:
    call = Call(api, {"stream_options": {"include_usage": True}})
    assert role_of(call) == "assistant"
    call.heartbeat()
    worker = Attempt(api)
    worker.say("the \u0000 ", 0)
    assert call.text() == "the \u0000 "
    assert job(api, call.job_id)["state"] == "running"
    worker.say("🎉 cat", 6)
    assert call.text() == "🎉 cat"
    worker.succeed("the \u0000 🎉 cat sat", system_fingerprint="fp")
    last = call.rest()
    assert [chunk["choices"] and chunk["choices"][0]["delta"] for chunk in last] == [
        {"content": " sat"}, {}, [],
    ]  # fmt: skip
    assert last[1]["choices"][0]["finish_reason"] == "stop"
    assert last[2]["usage"] == USAGE
    assert {chunk["model"] for chunk in last} == {MODEL}
    shown = job(api, call.job_id)
    assert shown["result"]["choices"][0]["message"]["content"] == "the \u0000 🎉 cat sat"
    call.close()
    api.until_waiting(0)
    assert api.services.waiter.waiting == 0


def test_a_job_that_was_quicker_is_told_whole(api: ApiCase) -> None:
    call = Call(api)
    Attempt(api).succeed("all of it")
    assert role_of(call) == "assistant"
    assert [chunk["choices"][0]["delta"] for chunk in call.rest()] == [{"content": "all of it"}, {}]


def test_completions_have_a_shape_of_their_own(api: ApiCase) -> None:
    body = {"model": MODEL, "prompt": ["ab", "c"], "echo": True, "stream": True}
    reply = api.app.test_client().post("/v1/completions", json=body, headers=api.key)
    said = (line.decode() for line in reply.iter_encoded())
    opening = [json.loads(line[6:]) for line in next(said).strip().split("\n\n")]
    assert [(c["object"], c["choices"][0]["text"]) for c in opening] == [
        ("text_completion", "ab"), ("text_completion", "c"),
    ]  # fmt: skip
    worker = Attempt(api)
    worker.say("!", 1, choice=1)
    word = json.loads(next(line for line in said if line != HEARTBEAT)[6:])
    assert word["choices"] == [{"index": 1, "text": "!", "logprobs": None, "finish_reason": None}]
    choices = [
        {"index": 0, "text": "ab?", "finish_reason": "length"},
        {"index": 1, "text": "c!", "finish_reason": "stop"},
    ]
    worker.succeed(choices=choices)
    assert '"text":"?"' in next(line for line in said if line != HEARTBEAT)


def test_a_key_that_comes_again_reads_the_same_job_from_its_beginning(api: ApiCase) -> None:
    first = Call(api, headers={"Idempotency-Key": "k"})
    role_of(first)
    worker = Attempt(api)
    worker.say("one ", 0)
    assert first.text() == "one "
    again = Call(api, headers={"Idempotency-Key": "k"})
    assert again.job_id == first.job_id
    role_of(again)
    assert again.text() == "one "
    worker.succeed("one two")
    for call in (first, again):
        assert call.rest()[0]["choices"][0]["delta"] == {"content": "two"}
    later = Call(api, headers={"Idempotency-Key": "k"})
    role_of(later)
    assert later.text() == "one two"


def test_many_streams_are_one_question(api: ApiCase) -> None:
    calls = [Call(api) for _ in range(5)]
    for call in calls:
        role_of(call)
    with api.count_statements() as statements:
        workers = [Attempt(api) for _ in calls]
        for number, worker in enumerate(workers):
            worker.say(f"word {number}", 0)
        assert sorted(call.text() for call in calls) == [f"word {n}" for n in range(5)]
    assert statements
    assert all("unnest(CAST(%(readers)s" in statement for statement in statements)
    for call in calls:
        call.close()


# --- attempts ------------------------------------------------------------------------------------


def test_another_attempt_goes_on_where_the_text_stood(api: ApiCase) -> None:
    call = Call(api)
    role_of(call)
    first = Attempt(api)
    first.say("one two", 0)
    assert call.text() == "one two"
    first.lose()
    second = Attempt(api)
    assert second.held.epoch > first.held.epoch
    second.say("one", 0)
    second.say(" two thr", 3)
    assert call.text() == " thr"
    first.say("a zombie's", 7)
    second.succeed("one two three")
    assert call.text() == "ee"
    assert call.rest()[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("told", ["in a delta", "with the result"])
def test_a_text_that_is_otherwise_ends_the_stream_and_not_the_job(api: ApiCase, told: str) -> None:
    call = Call(api)
    role_of(call)
    first = Attempt(api)
    first.say("one two", 0)
    assert call.text() == "one two"
    first.lose()
    second = Attempt(api)
    if told == "in a delta":
        second.say("one three", 0)
    else:
        second.succeed("one three")
    [error] = call.rest()
    assert error["error"]["code"] == "stream_interrupted"
    assert error["error"]["type"] == "server_error"
    assert call.job_id in error["error"]["message"]
    if told == "in a delta":
        assert job(api, call.job_id)["state"] == "running"
        second.succeed("one three")
    assert job(api, call.job_id)["state"] == "succeeded"


def test_deltas_that_were_lost_are_made_up_for_by_the_result(api: ApiCase) -> None:
    """As after a crash of the database: the table is unlogged."""
    call = Call(api)
    role_of(call)
    worker = Attempt(api)
    worker.say("one ", 0)
    assert call.text() == "one "
    worker.tell(5, [[0, 9, "later"]])
    call.heartbeat()
    worker.succeed("one two, later")
    assert call.text() == "two, later"


# --- bad ends ------------------------------------------------------------------------------------


def test_what_fails_at_once_is_an_ordinary_error(
    api: ApiCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SETTLE_SECONDS", PATIENCE_SECONDS)
    replies: list[Any] = []
    calling = threading.Thread(
        target=lambda: replies.append(api.app.test_client().post(CHAT, json=BODY, headers=api.key))
    )
    calling.start()
    api.until_waiting(1)
    while not api.get("/v1/jobs").json["data"]:
        pass
    Attempt(api).fail("context_length_exceeded", "too long")
    calling.join(PATIENCE_SECONDS)
    [reply] = replies
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "context_length_exceeded")
    assert reply.headers["x-pressrun-job"]
    assert api.services.waiter.waiting == 0


def test_what_fails_later_is_the_last_word(api: ApiCase) -> None:
    call = Call(api)
    role_of(call)
    worker = Attempt(api)
    worker.say("one", 0)
    assert call.text() == "one"
    worker.fail("engine_crashed", "it is gone")
    assert call.rest() == [
        {"error": {"message": "it is gone", "type": "server_error", "param": None,
                   "code": "engine_crashed"}}
    ]  # fmt: skip


def test_a_job_that_is_cancelled_says_so(api: ApiCase) -> None:
    call = Call(api)
    role_of(call)
    assert api.post(f"/v1/jobs/{call.job_id}/cancel").status_code == 200
    [error] = call.rest()
    assert (error["error"]["code"], error["error"]["type"]) == ("conflict", "conflict_error")


def test_a_stream_in_which_nothing_happens_ends(database_url: str, tmp_path: Path) -> None:
    api = ApiCase(make_settings(database_url, tmp_path, direct_seconds=0.3))
    try:
        call = Call(api)
        role_of(call)
        [error] = call.rest()
        assert error["error"]["code"] == "still_running"
        Attempt(api).succeed("late")
        assert job(api, call.job_id)["state"] == "succeeded"
    finally:
        api.close()


def test_streams_end_with_their_process_and_their_jobs_go_on(api: ApiCase) -> None:
    call = Call(api, headers={"x-pressrun-cancel-on-disconnect": "true"})
    role_of(call)
    api.services.waiter.serve_while(lambda: False)
    [error] = call.rest()
    assert error["error"]["code"] == "stream_interrupted"
    call.close()
    Attempt(api).succeed("late")
    assert job(api, call.job_id)["state"] == "succeeded"


def test_there_are_only_so_many_streams(database_url: str, tmp_path: Path) -> None:
    api = ApiCase(make_settings(database_url, tmp_path, api_threads=8, api_waiting_requests=2))
    try:
        calls = [Call(api), Call(api)]
        refused = api.post(CHAT, BODY)
        assert (refused.status_code, refused.json["error"]["code"]) == (429, "too_many_requests")
        assert len(api.get("/v1/jobs").json["data"]) == 2
        for call in calls:
            call.close()
        Call(api).close()
    finally:
        api.close()


@pytest.mark.parametrize(
    ("asked", "state"), [(None, "queued"), ("false", "queued"), ("true", "cancelled")]
)
def test_a_caller_who_goes_away_may_have_the_job_cancelled(
    api: ApiCase, asked: str | None, state: str
) -> None:
    call = Call(api, headers={"x-pressrun-cancel-on-disconnect": asked} if asked else {})
    role_of(call)
    call.close()
    assert job(api, call.job_id)["state"] == state
    assert api.services.waiter.waiting == 0


def test_a_stream_told_to_its_end_cancels_nothing(api: ApiCase) -> None:
    call = Call(api, headers={"x-pressrun-cancel-on-disconnect": "true"})
    Attempt(api).succeed("all")
    call.rest()
    call.close()
    assert job(api, call.job_id)["state"] == "succeeded"


@pytest.mark.parametrize(
    ("body", "headers", "param"),
    [
        ({"stream": "yes"}, {}, "stream"),
        ({"stream": False, "stream_options": {}}, {}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, {}, "stream_options.include_usage"),
        ({"stream_options": {"more": True}}, {}, "stream_options.more"),
        ({}, {"x-pressrun-cancel-on-disconnect": "maybe"}, "x-pressrun-cancel-on-disconnect"),
        ({"temperature": 3}, {}, "temperature"),
    ],
)
def test_bad_streams_are_refused_before_they_begin(
    api: ApiCase, body: dict[str, Any], headers: dict[str, str], param: str
) -> None:
    reply = api.post(CHAT, BODY | body, headers=headers)
    assert (reply.status_code, reply.json["error"]["param"]) == (400, param)
    assert api.get("/v1/jobs").json["data"] == []


def test_a_job_that_nobody_reads_along_cannot_stream(api: ApiCase) -> None:
    reply = api.post("/v1/jobs", {"endpoint": CHAT, "body": BODY})
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "streaming_unsupported")


# --- the table -----------------------------------------------------------------------------------


def test_the_table_is_unlogged_and_has_what_was_said_once(api: ApiCase) -> None:
    Call(api).close()
    worker = Attempt(api)
    worker.tell(0, [[0, 0, "one"]])
    worker.tell(0, [[0, 0, "one"]])
    assert deltas_n(api) == 1
    with api.begin() as connection:
        kind = "SELECT relpersistence FROM pg_class WHERE relname = 'deltas'"
        assert connection.execute(text(kind)).scalar_one() in ("u", b"u")


def test_only_who_holds_the_shard_is_heard(api: ApiCase) -> None:
    Call(api).close()
    worker = Attempt(api)
    with api.begin() as connection:
        for session, epoch in [("another", worker.held.epoch), (worker.session, 99)]:
            held = Held(worker.held.shard_id, epoch)
            working.add_deltas(connection, session, [NewDelta(held, 0, "[]")])
    assert deltas_n(api) == 0
    worker.succeed("done")
    worker.say("late", 0)
    assert deltas_n(api) == 0


def test_another_tenant_reads_nothing(api: ApiCase) -> None:
    call = Call(api)
    worker = Attempt(api)
    worker.say("secret", 0)
    with api.begin() as connection:
        tenant = connection.execute(text("SELECT tenant_id FROM deltas")).scalar_one()
        own, other = Place(tenant, call.job_id), Place("ten_other", call.job_id)
        read = read_deltas(connection, [own, other])
    assert [piece.text for piece in read[0].deltas[0].pieces] == ["secret"]
    assert (read[1].ended, read[1].deltas) == (True, [])
    call.close()


def test_more_than_one_read_takes_is_read_in_order(api: ApiCase) -> None:
    call = Call(api)
    worker = Attempt(api)
    with api.begin() as connection:
        deltas = [NewDelta(worker.held, n, f'[[0,{n},"x"]]') for n in range(AT_ONCE + 10)]
        working.add_deltas(connection, worker.session, deltas)
    role_of(call)
    said = ""
    while len(said) < AT_ONCE + 10:
        said += call.text()
    worker.succeed(said + "!")
    assert call.text() == "!"


def test_deltas_go_when_their_job_has_ended(api: ApiCase) -> None:
    calls = [Call(api), Call(api)]
    workers = [Attempt(api), Attempt(api)]
    for worker in workers:
        worker.say("one", 0)
    workers[0].succeed("one")
    with api.begin() as connection:
        assert forget_deltas(connection) == 1
        left = connection.execute(text("SELECT job_id FROM deltas")).scalars().all()
    assert left == [calls[1].job_id]
    for call in calls:
        call.close()
