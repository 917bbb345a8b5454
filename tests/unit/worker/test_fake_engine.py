"""The fake engine: what it answers, and how its directives behave inside a process."""

from __future__ import annotations

import base64
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from shared.errors import UnsupportedEndpoint
from worker.engines.base import EngineFailed
from worker.engines.fake import FakeEngine, FakeSettings, create, fake_response, fake_result
from worker.engines.fake_responses import EMBEDDING_DIMENSIONS, WORDS
from worker.engines.protocol import Load, Row, RowResult

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"


class Clock:
    """Time that passes only by napping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def chat_body(text: str = "Name a harbour", **fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], **fields}).encode()


def chat(text: str = "Name a harbour", **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(fake_response(CHAT, chat_body(text, **fields), "m"))
    return answer


def content(answer: dict[str, Any], choice: int = 0) -> str:
    text: str = answer["choices"][choice]["message"]["content"]
    return text


def engine(clock: Clock | None = None, **settings: Any) -> FakeEngine:
    clock = clock or Clock()
    return FakeEngine("m", FakeSettings(**settings), clock=clock, nap=clock.nap)


def row(text: str = "hello", index: int = 0) -> Row:
    return Row(index, CHAT, chat_body(text))


def error_of(result: RowResult | None) -> tuple[int, str]:
    assert result is not None
    return result.status, json.loads(result.body)["error"]["code"]


# --- responses


def test_words_are_256_and_distinct() -> None:
    assert len(WORDS) == len(set(WORDS)) == 256


def test_chat_has_the_shape_of_openai_and_counts_words() -> None:
    body = chat_body("two words", max_tokens=5)
    answer = json.loads(fake_response(CHAT, body, "the-model"))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "the-model"
    assert answer["id"].startswith("chatcmpl-")
    assert isinstance(answer["created"], int)
    [choice] = answer["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "length"
    assert choice["message"]["role"] == "assistant"
    assert len(choice["message"]["content"].split()) == 5
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
    assert fake_result(CHAT, body, "the-model")[1:] == (2, 5)


def test_a_reply_that_ends_by_itself_says_stop() -> None:
    answer = chat(max_tokens=1000)
    assert answer["choices"][0]["finish_reason"] == "stop"
    words_n = len(content(answer).split())
    assert 8 <= words_n <= 71
    assert answer["usage"]["completion_tokens"] == words_n


def test_max_completion_tokens_and_the_default_limit_hold_too() -> None:
    assert chat(max_completion_tokens=3)["usage"]["completion_tokens"] == 3
    assert fake_result(CHAT, chat_body(), "m", 4).output_tokens == 4
    assert fake_result(CHAT, chat_body(max_tokens=6), "m", 4).output_tokens == 6


def test_equal_requests_get_equal_bytes_however_the_json_is_spelled() -> None:
    plain = b'{"messages":[{"role":"user","content":"hi"}],"seed":1}'
    spelled = (
        b'{ "seed": 1, "messages": [ {"content": [{"type":"text","text":"hi"}], "role": "user"} ] }'
    )
    assert fake_response(CHAT, plain, "m") == fake_response(CHAT, spelled, "m")


@pytest.mark.parametrize(
    "other",
    [
        b'{"messages":[{"role":"user","content":"ho"}],"seed":1}',
        b'{"messages":[{"role":"system","content":"hi"}],"seed":1}',
        b'{"messages":[{"role":"user","content":"hi"}],"seed":2}',
        b'{"messages":[{"role":"user","content":"hi"}]}',
        b'{"messages":[{"role":"user","content":"hi"},{"role":"user","content":""}],"seed":1}',
    ],
)
def test_prompt_roles_and_seed_all_change_the_reply(other: bytes) -> None:
    body = b'{"messages":[{"role":"user","content":"hi"}],"seed":1}'
    first, second = (json.loads(fake_response(CHAT, b, "m")) for b in (body, other))
    assert content(first) != content(second)
    assert first["id"] != second["id"]


def test_n_choices_differ_and_all_count() -> None:
    answer = chat(n=3, max_tokens=6)
    assert len({content(answer, choice) for choice in range(3)}) == 3
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 18


def test_the_earliest_stop_sequence_cuts() -> None:
    words = content(chat(max_tokens=8)).split()
    answer = chat(max_tokens=8, stop=[f" {words[5]} ", f" {words[3]} "])
    assert content(answer).split() == words[:3]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 3


def test_completions_take_many_prompts_and_echo() -> None:
    body = json.dumps({"prompt": ["a b", "c"], "n": 2, "max_tokens": 4, "echo": True}).encode()
    answer = json.loads(fake_response(COMPLETIONS, body, "m"))
    assert answer["object"] == "text_completion"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    starts = [choice["text"].split()[:1] for choice in answer["choices"]]
    assert starts == [["a"], ["a"], ["c"], ["c"]]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 16, "total_tokens": 19}


def test_completions_default_to_sixteen_tokens_at_most() -> None:
    tokens = [
        fake_result(COMPLETIONS, json.dumps({"prompt": f"{i}"}).encode(), "m").output_tokens
        for i in range(50)
    ]
    assert max(tokens) == 16


def test_embeddings_are_unit_vectors_that_depend_on_the_text() -> None:
    body = json.dumps({"input": ["one", "two words"]}).encode()
    answer = json.loads(fake_response(EMBEDDINGS, body, "m"))
    first, second = (item["embedding"] for item in answer["data"])
    assert len(first) == len(second) == EMBEDDING_DIMENSIONS
    assert math.isclose(math.hypot(*first), 1, rel_tol=1e-9)
    assert first != second
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_base64_embeddings_hold_the_same_numbers() -> None:
    fields = {"input": "one", "dimensions": 5}
    numbers = json.loads(fake_response(EMBEDDINGS, json.dumps(fields).encode(), "m"))
    fields["encoding_format"] = "base64"
    packed = json.loads(fake_response(EMBEDDINGS, json.dumps(fields).encode(), "m"))
    unpacked = struct.unpack("<5f", base64.b64decode(packed["data"][0]["embedding"]))
    assert unpacked == pytest.approx(numbers["data"][0]["embedding"], rel=1e-6)


def test_unknown_endpoints_and_bad_bodies_raise() -> None:
    with pytest.raises(UnsupportedEndpoint):
        fake_response("/v1/images/generations", b"{}", "m")
    with pytest.raises(ValueError, match="messages"):
        fake_response(CHAT, b"{}", "m")


# --- the engine


def test_rows_are_answered_as_by_the_pure_function_in_order() -> None:
    subject = engine()
    bodies = [chat_body(f"row {i}") for i in range(5)]
    for i, body in enumerate(bodies):
        assert subject.submit(7, 2, Row(i, CHAT, body)) is None
    assert subject.busy
    results = subject.step()
    assert [(r.shard, r.epoch, r.index, r.status) for r in results] == [
        (7, 2, i, 200) for i in range(5)
    ]
    assert [r.body for r in results] == [fake_response(CHAT, body, "m") for body in bodies]
    assert all(r.input_tokens == 2 and r.output_tokens >= 8 for r in results)
    assert not subject.busy


def test_a_step_takes_rows_per_step_rows() -> None:
    subject = engine(rows_per_step=2)
    for i in range(5):
        subject.submit(1, 1, row(index=i))
    assert (subject.active_rows, subject.waiting_rows) == (2, 3)
    assert [len(subject.step()) for _ in range(3)] == [2, 2, 1]


def test_delays_run_side_by_side_and_no_nap_is_long() -> None:
    clock = Clock()
    subject = engine(clock, seconds_per_row=0.1)
    for i in range(10):
        subject.submit(1, 1, row("[[delay 0.5]]" if i == 3 else "x", i))
    done: dict[int, float] = {}
    while subject.busy:
        for result in subject.step():
            done[result.index] = clock.now - 1000
    assert done.pop(3) == pytest.approx(0.6, abs=0.021)
    assert list(done.values()) == pytest.approx([0.1] * 9, abs=0.021)
    assert max(clock.naps) <= 0.02


def test_a_sleeper_naps_until_it_is_cancelled() -> None:
    clock = Clock()
    subject = engine(clock)
    subject.submit(1, 1, row("[[sleep-forever]]"))
    subject.submit(1, 2, row("[[delay 0.01]]"))
    finished = [result.epoch for _ in range(100) for result in subject.step()]
    assert finished == [2]
    assert subject.busy
    subject.cancel(1, 1)
    assert not subject.busy
    assert subject.step() == []


def test_cancel_spares_other_shards_and_epochs() -> None:
    subject = engine()
    for shard, epoch in [(1, 1), (1, 2), (2, 1)]:
        subject.submit(shard, epoch, row())
    subject.cancel(1, 1)
    assert [(r.shard, r.epoch) for r in subject.step()] == [(1, 2), (2, 1)]


def test_errors_by_directive_are_row_results() -> None:
    subject = engine()
    subject.submit(1, 1, row("[[error 503 worn_out]]"))
    [result] = subject.step()
    assert error_of(result) == (503, "worn_out")
    assert set(json.loads(result.body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "text", ["[[error 200 fine]]", "[[exit now]]", "[[crash-once]]", "[[hang 3]]"]
)
def test_a_wrong_directive_fails_its_row_only(text: str) -> None:
    subject = engine()
    subject.submit(1, 1, row(text))
    [result] = subject.step()
    assert error_of(result) == (400, "bad_directive")


@pytest.mark.parametrize("text", ["[[delay nan]]", "[[delay -1]]", "[[delay]]"])
def test_a_wrong_delay_is_refused_at_once(text: str) -> None:
    subject = engine()
    assert error_of(subject.submit(1, 1, row(text))) == (400, "bad_directive")
    assert not subject.busy


def test_only_the_last_text_is_searched_and_only_known_names_count() -> None:
    messages = [{"role": "user", "content": "[[crash]]"}, {"role": "user", "content": "[[link]]"}]
    subject = engine()
    subject.submit(1, 1, Row(0, CHAT, json.dumps({"messages": messages}).encode()))
    subject.submit(1, 1, Row(1, EMBEDDINGS, b'{"input":["[[oom]]","[[error 400 last]]"]}'))
    subject.submit(1, 1, Row(2, COMPLETIONS, b'{"prompt":"[[error 400 prompt]]"}'))
    assert [result.status for result in subject.step()] == [200, 400, 400]


def test_unreadable_rows_become_errors() -> None:
    subject = engine()
    subject.submit(1, 1, Row(0, CHAT, b"{nope"))
    subject.submit(1, 1, Row(1, "/v1/unheard-of", b"{}"))
    assert [error_of(result) for result in subject.step()] == [
        (400, "invalid_request"),
        (400, "unsupported_endpoint"),
    ]
    assert error_of(subject.submit(1, 1, Row(2, CHAT, b"[[")))[1] == "invalid_request"


def test_failures_of_the_engine_raise_from_the_step() -> None:
    subject = engine()
    subject.submit(1, 1, row("[[oom]]"))
    with pytest.raises(MemoryError):
        subject.step()
    subject.submit(1, 1, row("[[fatal device_lost]]"))
    with pytest.raises(EngineFailed) as caught:
        subject.step()
    assert caught.value.code == "device_lost"


def test_crash_once_needs_scratch_and_passes_when_marked(tmp_path: Path) -> None:
    bare = engine()
    bare.submit(1, 1, row("[[crash-once t1]]"))
    assert error_of(bare.step()[0]) == (400, "bad_directive")
    (tmp_path / "crash-once-t1").touch()
    marked = engine(scratch=str(tmp_path))
    marked.submit(1, 1, row("[[crash-once t1]]"))
    assert marked.step()[0].status == 200


def test_create_checks_settings_and_reports_progress() -> None:
    seen: list[float] = []
    load = Load("m", "fake", "", {"capacity": 9, "resident_bytes": 5, "load_seconds": 0.001})
    made = create(load, lambda fraction, _: seen.append(fraction))
    assert (made.capacity, made.resident_bytes) == (9, 5)
    assert seen[-1] == 1.0
    assert all(0 <= fraction <= 1 for fraction in seen)


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"capacty": 9}, "invalid_settings"), ({"load_error": "no_weights"}, "no_weights")],
)
def test_create_fails_by_code(settings: dict[str, Any], code: str) -> None:
    with pytest.raises(EngineFailed) as caught:
        create(Load("m", "fake", "", settings), lambda *_: None)
    assert caught.value.code == code


def test_the_best_of_several_are_the_likeliest() -> None:
    """By the mean of what it says of each word."""

    def choices(**fields: Any) -> list[dict[str, Any]]:
        body = {"prompt": "a river", "logprobs": 0, "max_tokens": 9} | fields
        answer = json.loads(fake_response(COMPLETIONS, json.dumps(body).encode(), "m"))
        found: list[dict[str, Any]] = answer["choices"]
        assert [choice["index"] for choice in found] == list(range(len(found)))
        return found

    def mean(choice: dict[str, Any]) -> float:
        found = choice["logprobs"]["token_logprobs"]
        return sum(found) / len(found)

    every = choices(n=6)
    assert choices(n=6, best_of=6) == every
    best = sorted(every, key=mean, reverse=True)
    told = choices(n=2, best_of=6)
    assert [choice["text"] for choice in told] == [choice["text"] for choice in best[:2]]
