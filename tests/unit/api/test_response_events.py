"""Events of a response: whatever pieces its text comes in, and wherever somebody comes back, they
add up to the response."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from api import rendering
from api.chunks import Diverged
from api.response_events import ResponseNarrator
from shared.db.streams import Piece
from shared.translation import responses

TEXT = "naïve 🎉 cats sat"
ID = "resp_01"
ASKED: dict[str, Any] = {"input": "x"}
ERROR = {"code": "stream_interrupted", "message": "why", "param": None, "type": "server_error"}
CHAT = {
    "created": 9,
    "model": "m",
    "choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12},
}
KNOWN: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def created(status: str = "in_progress") -> dict[str, Any]:
    return responses.response(ID, created_at=7, model="m", status=status, asked=ASKED)


def result(**choice: Any) -> dict[str, Any]:
    chat = CHAT | {"choices": [CHAT["choices"][0] | choice]}
    return responses.answered(ID, created_at=7, asked=ASKED, chat=chat)


def narrator(after: int = -1, status: str = "in_progress") -> ResponseNarrator:
    return ResponseNarrator(
        created(status), of_job=lambda _: created("failed"), after=after
    )  # fmt: skip


def events(said: str) -> list[dict[str, Any]]:
    """Each as its client reads it: of a type that the client knows, with all that it needs."""
    found = []
    for block in said.split("\n\n")[:-1]:
        name, data = block.split("\n")
        body = json.loads(data.removeprefix("data: "))
        assert name == f"event: {body['type']}"
        KNOWN.validate_python(body)
        found.append(body)
    return found


def text_of(told: list[dict[str, Any]]) -> str:
    return "".join(event.get("delta", "") for event in told)


def whole(*pieces: str, after: int = -1, status: str = "in_progress") -> list[dict[str, Any]]:
    one = narrator(after, status)
    said, at = one.opening(), 0
    for piece in pieces:
        said += one.say([Piece(0, at, piece)])
        at += len(piece)
    return events(said + one.close(result()))


def test_the_events_of_a_response() -> None:
    told = whole(TEXT[:5], TEXT[5:])
    assert [(event["type"], event["sequence_number"]) for event in told] == [
        ("response.created", 0),
        ("response.in_progress", 1),
        ("response.output_item.added", 2),
        ("response.content_part.added", 3),
        ("response.output_text.delta", 8),
        ("response.output_text.delta", 3 + len(TEXT)),
        ("response.output_text.done", 4 + len(TEXT)),
        ("response.content_part.done", 5 + len(TEXT)),
        ("response.output_item.done", 6 + len(TEXT)),
        ("response.completed", 7 + len(TEXT)),
    ]
    assert told[-1]["response"] == result()
    assert told[6]["text"] == text_of(told) == TEXT
    assert {event["item_id"] for event in told if "item_id" in event} == {
        result()["output"][0]["id"]
    }


def test_in_the_background_it_is_queued_until_it_says_something() -> None:
    one = narrator(status="queued")
    (first,) = events(one.opening())
    assert (first["type"], first["response"]["status"]) == ("response.created", "queued")
    begun = events(one.say([Piece(0, 0, "n")]))
    assert [event["type"] for event in begun[:2]] == [
        "response.in_progress", "response.output_item.added",
    ]  # fmt: skip
    assert begun[0]["response"]["status"] == "in_progress"


@given(
    cuts=st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(1, 5)), max_size=12),
    status=st.sampled_from(["queued", "in_progress"]),
)
def test_whatever_pieces_come_the_numbers_rise_and_the_text_is_whole(
    cuts: list[tuple[int, int]], status: str
) -> None:
    one = narrator(status=status)
    said = one.opening() + "".join(one.say([Piece(0, at, TEXT[at : at + n])]) for at, n in cuts)
    told = events(said + one.close(result()))
    numbers = [event["sequence_number"] for event in told]
    assert numbers == sorted(set(numbers))
    assert text_of(told) == TEXT
    assert told[-1]["response"] == result()


@given(
    first=st.lists(st.integers(1, len(TEXT)), max_size=5).map(sorted),
    second=st.lists(st.integers(1, len(TEXT)), max_size=5).map(sorted),
    seen=st.integers(0, 20),
)
def test_who_comes_back_is_told_the_rest_and_nothing_twice(
    first: list[int], second: list[int], seen: int
) -> None:
    """The other stream may come in other pieces: another process reads at other moments."""

    def pieces(ends: list[int]) -> list[str]:
        return [TEXT[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b]

    before = whole(*pieces(first))[: seen + 1]
    after = before[-1]["sequence_number"]
    rest = whole(*pieces(second), after=after)
    assert all(event["sequence_number"] > after for event in rest)
    assert text_of(before) + text_of(rest) == TEXT
    assert [event["type"] for event in rest if "delta" not in event] == [
        event["type"]
        for event in whole()
        if "delta" not in event and event["sequence_number"] > after
    ]


def test_a_text_that_was_cut_is_incomplete() -> None:
    one = narrator()
    told = events(one.opening() + one.close(result(finish_reason="length")))
    assert told[-1]["type"] == "response.incomplete"
    assert told[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_refusal_takes_the_place_of_the_text() -> None:
    one = narrator()
    said = one.opening() + one.say([Piece(0, 0, "{")])
    told = events(said + one.close(result(message={"content": "{", "refusal": "no schema"})))
    assert [event["type"] for event in told[-4:]] == [
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert told[-4]["refusal"] == "no schema"


def test_what_is_said_otherwise_is_not_told() -> None:
    one = narrator()
    one.opening()
    one.say([Piece(0, 0, "the dog")])
    with pytest.raises(Diverged):
        one.say([Piece(0, 4, "cat")])
    with pytest.raises(Diverged):
        one.close(result())


@pytest.mark.parametrize("after", [-1, 50])
def test_an_end_without_an_answer(after: int) -> None:
    failed, broken = narrator(after), narrator(after)
    for one in (failed, broken):
        one.opening()
        one.say([Piece(0, 0, TEXT[:3])])
    row = rendering.new_job(
        ID, kind="response", endpoint="", model="m", metadata=None, expires_in_seconds=None
    )
    (told,) = events(failed.fail(row, ERROR))
    number = max(after, 6)
    assert (told["type"], told["sequence_number"]) == ("response.failed", number + 1)
    assert told["response"]["status"] == "failed"
    (told,) = events(broken.broken(ERROR))
    assert told == {
        "type": "error", "sequence_number": number, "code": "stream_interrupted",
        "message": "why", "param": None,
    }  # fmt: skip


# --- how likely tokens were ----------------------------------------------------------------------

TOKENS: list[str | bytes] = ["na", "ïve", " ", b"\xf0\x9f", b"\x8e\x89", " cats", " sat"]
PLACES = [2, 5, 6, 7, 7, 12, 16]
"""Where each ends in ``TEXT``."""


def entries(*tokens: str | bytes) -> list[dict[str, Any]]:
    raw = [token if isinstance(token, bytes) else token.encode() for token in tokens]
    return [
        {
            "token": one.decode(errors="backslashreplace"),
            "bytes": list(one),
            "logprob": -0.5,
            "top_logprobs": [{"token": "x", "bytes": [120], "logprob": -1.0}],
        }
        for one in raw
    ]


def tokens_told(after: int, upto: int) -> list[dict[str, Any]]:
    """Of a stream that was told in two pieces."""
    told = sum(place <= upto for place in PLACES)
    one = narrator(after)
    said = one.opening()
    said += one.say([Piece(0, 0, TEXT[:upto], 0, {"content": entries(*TOKENS[:told])})])
    said += one.close(result(logprobs={"content": entries(*TOKENS), "refusal": None}))
    return events(said)


@given(after=st.integers(-1, 24), upto=st.integers(1, len(TEXT)))
def test_tokens_come_with_the_delta_that_they_end_in(after: int, upto: int) -> None:
    """Also for whoever comes back: those that end in what is known are not told again."""
    told = tokens_told(after, upto)
    known = max(0, after - 3)
    found: list[str] = []
    for event in told:
        if event["type"] == "response.output_text.delta":
            assert all(set(entry) == {"token", "logprob", "top_logprobs"}
                       for entry in event["logprobs"])  # fmt: skip
            found += [entry["token"] for entry in event["logprobs"]]
        elif event["type"] == "response.output_text.done":
            assert [e["token"] for e in event["logprobs"]] == [e["token"] for e in entries(*TOKENS)]
    wanted = [
        entry["token"]
        for entry, place in zip(entries(*TOKENS), PLACES, strict=True)
        if place > known
    ]
    assert found == wanted


def test_the_whole_answer_has_their_bytes() -> None:
    *_, last = tokens_told(-1, 5)
    [part] = last["response"]["output"][0]["content"]
    assert part["logprobs"] == entries(*TOKENS)
