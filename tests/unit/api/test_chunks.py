"""Chunks of a stream: what was said stays said, and together they are the result."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.chunks import DONE, Diverged, Narrator
from shared.db.streams import Piece

TEXTS = ["the cat\u0000 sat", "naïve 🎉 \ud800 end"]
USAGE = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}


def narrator(*, chat: bool = True, leads: tuple[str, ...] = ("",), usage: bool = False) -> Narrator:
    return Narrator(
        chat=chat, name="job_1", model="m", created=7, leads=leads, with_usage=usage
    )  # fmt: skip


def result(*texts: str, chat: bool = True) -> dict[str, Any]:
    choices = [
        {"index": i, "finish_reason": "stop"}
        | ({"message": {"role": "assistant", "content": text}} if chat else {"text": text})
        for i, text in enumerate(texts)
    ]
    return {"choices": choices, "usage": USAGE, "system_fingerprint": "fp"}


def chunks(said: str) -> list[dict[str, Any]]:
    lines = said.removesuffix(DONE).split("\n\n")
    assert lines.pop() == ""
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def text_of(said: str, choice: int = 0) -> str:
    text = ""
    for chunk in chunks(said):
        for part in chunk["choices"]:
            if part["index"] == choice:
                text += part["text"] if "text" in part else part["delta"].get("content", "")
    return text


def test_the_last_chunk_says_why_an_answer_is_no_use() -> None:
    whole = result("{")
    whole["choices"][0]["message"]["refusal"] = "cut"
    last = chunks(narrator().close(whole))[-1]["choices"][0]
    assert (last["delta"], last["finish_reason"]) == ({"refusal": "cut"}, "stop")


def test_a_chat_opens_with_the_role_and_closes_with_the_reason() -> None:
    one = narrator()
    said = one.opening() + one.say([Piece(0, 0, "the ")]) + one.close(result("the cat"))
    assert said.endswith(DONE)
    assert [chunk["choices"][0] for chunk in chunks(said)] == [
        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        for delta, reason in [
            ({"role": "assistant", "content": ""}, None),
            ({"content": "the "}, None),
            ({"content": "cat"}, None),
            ({}, "stop"),
        ]
    ]
    first, *_, last = chunks(said)
    head = {"id": "chatcmpl-job_1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
    assert {**head, "choices": first["choices"]} == first
    assert last["system_fingerprint"] == "fp"


def test_usage_comes_last_where_it_is_asked_for_and_is_null_before() -> None:
    one = narrator(usage=True)
    *before, last = chunks(one.opening() + one.close(result("a")))
    assert before
    assert all(chunk["usage"] is None for chunk in before)
    assert (last["choices"], last["usage"]) == ([], USAGE)
    assert all("usage" not in chunk for chunk in chunks(narrator().close(result("a"))))


def test_a_completion_begins_with_the_echo_of_its_prompt() -> None:
    one = narrator(chat=False, leads=("ab", "cd"))
    said = one.opening()
    assert (text_of(said, 0), text_of(said, 1)) == ("ab", "cd")
    said += one.say([Piece(1, 2, "!")]) + one.close(result("ab?", "cd!", chat=False))
    assert (text_of(said, 0), text_of(said, 1)) == ("ab?", "cd!")
    assert chunks(said)[-1]["choices"] == [
        {"index": 1, "text": "", "logprobs": None, "finish_reason": "stop"}
    ]


def test_pieces_that_repeat_say_nothing_and_those_after_a_gap_wait_for_the_end() -> None:
    one = narrator()
    assert one.say([Piece(0, 0, "abc")])
    assert one.say([Piece(0, 0, "ab"), Piece(0, 1, "bc")]) == ""
    assert text_of(one.say([Piece(0, 2, "cd")])) == "d"
    assert one.say([Piece(0, 6, "g")]) == ""
    assert text_of(one.close(result("abcdefg"))) == "efg"


@pytest.mark.parametrize("other", [Piece(0, 0, "aX"), Piece(0, 1, "Xcd"), Piece(0, 2, "X")])
def test_a_text_that_changes_is_not_told(other: Piece) -> None:
    one = narrator()
    one.say([Piece(0, 0, "abc")])
    with pytest.raises(Diverged):
        one.say([other])


@pytest.mark.parametrize("whole", ["ab", "abX", ""])
def test_a_result_that_is_otherwise_is_not_told(whole: str) -> None:
    one = narrator()
    one.say([Piece(0, 0, "abc")])
    with pytest.raises(Diverged):
        one.close(result(whole))


@given(
    cuts=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 20))),
    chat=st.booleans(),
)
def test_whatever_pieces_come_the_stream_is_the_result(
    cuts: list[tuple[int, int, int]], chat: bool
) -> None:
    """Lost, repeated, overlapping, out of order: of the same text, all of them are harmless."""
    one = narrator(chat=chat, leads=("", ""))
    pieces = [Piece(c, at, TEXTS[c][at : at + n]) for c, at, n in cuts]
    said = one.opening() + "".join(one.say([piece]) for piece in pieces)
    said += one.close(result(*TEXTS, chat=chat))
    assert [text_of(said, 0), text_of(said, 1)] == TEXTS


def test_an_error_is_what_clients_look_for() -> None:
    assert narrator().broken({"code": "stream_interrupted"}) == (
        'data: {"error":{"code":"stream_interrupted"}}\n\n'
    )


# --- how likely tokens were ----------------------------------------------------------------------

TOKENS = ["the", " c", "at", "\\xf0\\x9f", "\\x8e", " sat"]


def content(*tokens: str) -> dict[str, Any]:
    return {
        "content": [
            {"token": t, "bytes": None, "logprob": -1.0, "top_logprobs": []} for t in tokens
        ],
        "refusal": None,
    }


def with_tokens(text: str, logprobs: dict[str, Any], *, chat: bool = True) -> dict[str, Any]:
    whole = result(text, chat=chat)
    whole["choices"][0]["logprobs"] = logprobs
    return whole


def tokens_of(said: str) -> list[list[str] | None]:
    """Of each chunk."""
    told = [part["logprobs"] for chunk in chunks(said) for part in chunk["choices"]]
    return [
        one and (one["tokens"] if "tokens" in one else [entry["token"] for entry in one["content"]])
        for one in told
    ]


def test_each_token_is_told_once_with_its_text() -> None:
    """However pieces overlap; one without a character of its own comes with those around it."""
    one = narrator()
    said = one.say([Piece(0, 0, "the ca", 0, content(*TOKENS[:2]))])
    said += one.say([Piece(0, 0, "the ca", 0, content(*TOKENS[:2]))])
    said += one.say([Piece(0, 3, " cat🎉", 1, content(*TOKENS[1:5]))])
    said += one.close(with_tokens("the cat🎉 sat", content(*TOKENS)))
    assert tokens_of(said) == [TOKENS[:2], TOKENS[2:5], TOKENS[5:], None]
    assert text_of(said) == "the cat🎉 sat"


def test_tokens_that_were_left_out_are_told_at_the_end() -> None:
    one = narrator()
    said = one.say([Piece(0, 0, "the", 1, content(*TOKENS[1:2]))])
    said += one.close(with_tokens("the", content(*TOKENS[:2])))
    assert tokens_of(said) == [None, TOKENS[:2], None]


def test_a_completion_is_told_in_its_own_shape() -> None:
    whole = {
        "tokens": ["a", "b"],
        "token_logprobs": [-1.0, -2.0],
        "top_logprobs": [{"a": -1.0}, {"b": -2.0}],
        "text_offset": [4, 5],
    }
    one = narrator(chat=False)
    first = {name: part[:1] for name, part in whole.items()}
    said = one.say([Piece(0, 0, "a", 0, first)]) + one.close(with_tokens("ab", whole, chat=False))
    told = [part["logprobs"] for chunk in chunks(said) for part in chunk["choices"]]
    assert told == [first, {name: part[1:] for name, part in whole.items()}, None]


def test_other_tokens_for_the_same_text_are_not_told() -> None:
    one = narrator()
    one.say([Piece(0, 0, "the", 0, content("the"))])
    with pytest.raises(Diverged):
        one.close(with_tokens("the", content("th", "e")))
