"""Responses and moderations: what engines are asked instead, and what becomes of the answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import ModerationCreateResponse
from openai.types.responses import Response

from api.moderation_objects import Moderations
from api.response_objects import ResponseMessage, ResponseObject
from shared.errors import InvalidRequest, StreamingUnsupported, UnsupportedParameter
from shared.specs import ModerationSpec, ResponseSpec, parse_body, parse_body_json
from shared.translation import ENGINE_ENDPOINTS, moderations, responses, serves
from shared.translation.thresholds import USUAL, Thresholds, parse_thresholds

RESPONSES, MODERATIONS = ENGINE_ENDPOINTS
OUTPUT_ITEM = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Rhine", "annotations": []}],
}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_800_000_100,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Rhine"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


def spec(**members: Any) -> ResponseSpec:
    parsed = parse_body(RESPONSES, {"model": "m", "input": "hello"} | members)
    assert isinstance(parsed, ResponseSpec)
    return parsed


def moderation_spec(**members: Any) -> ModerationSpec:
    parsed = parse_body(MODERATIONS, members)
    assert isinstance(parsed, ModerationSpec)
    return parsed


# --- responses ------------------------------------------------------------------------------------


def test_every_translated_body_is_one_that_its_engine_takes() -> None:
    whole = spec(
        instructions="Be brief.",
        input=[{"role": "user", "content": "Name a river"}, OUTPUT_ITEM,
               {"type": "message", "role": "developer", "content": [
                   {"type": "input_text", "text": "an"}, {"type": "input_text", "text": "d"}]}],
        temperature=0.5, top_p=0.9, max_output_tokens=7,
    )  # fmt: skip
    body = responses.chat_body(whole)
    parse_body(ENGINE_ENDPOINTS[RESPONSES], body)
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Name a river"},
            {"role": "assistant", "content": "Rhine"},
            {"role": "developer", "content": "and"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 7,
    }
    judged = moderations.classification_body(moderation_spec(input=["a", "b"]), "guard")
    parse_body(ENGINE_ENDPOINTS[MODERATIONS], judged)


@pytest.mark.parametrize(
    ("members", "error", "param"),
    [
        ({"tools": []}, UnsupportedParameter, "tools"),
        ({"reasoning": {"effort": "low"}}, UnsupportedParameter, "reasoning"),
        ({"stream": True}, StreamingUnsupported, "stream"),
        ({"text": {"format": {"type": "xml"}}}, InvalidRequest, "text.format.type"),
        ({"text": {"verbosity": "low"}}, UnsupportedParameter, "text.verbosity"),
        ({"store": False}, InvalidRequest, "store"),
        ({"input": []}, InvalidRequest, "input"),
        ({"input": 5}, InvalidRequest, "input"),
        ({"input": [{"type": "function_call"}]}, InvalidRequest, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "text": "x"}]}]},
         InvalidRequest, "input[0].content[0].type"),
        ({"metadata": {"a": 1}}, InvalidRequest, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, InvalidRequest, "metadata"),
        ({"max_output_tokens": 0}, InvalidRequest, "max_output_tokens"),
        ({"temperature": float("inf")}, InvalidRequest, "temperature"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(
    members: dict[str, Any], error: type[InvalidRequest], param: str
) -> None:
    body = {"model": "m", "input": "x"} | members
    with pytest.raises(error) as from_object:
        parse_body(RESPONSES, body)
    assert from_object.value.param == param
    if param != "temperature":
        with pytest.raises(error) as from_json:
            parse_body_json(RESPONSES, json.dumps(body).encode())
        assert from_json.value.param == param


def test_null_is_the_default() -> None:
    assert spec(instructions=None, temperature=None, metadata=None, background=None) == spec()


@pytest.mark.parametrize("members", [{"previous_response_id": "resp_1"}, {"background": True}])
def test_some_of_it_is_not_for_rows(members: dict[str, Any]) -> None:
    spec().check_row()
    with pytest.raises(UnsupportedParameter) as caught:
        spec(**members).check_row()
    assert caught.value.param == next(iter(members))


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_an_answer_is_what_clients_and_the_document_expect(reason: str) -> None:
    chat = CHAT | {"choices": [CHAT["choices"][0] | {"finish_reason": reason}]}  # type: ignore[index]
    asked = {"instructions": "x", "metadata": {"a": "b"}, "background": True, "input": "secret"}
    made = responses.answered("resp_1", created_at=1_800_000_000, asked=asked, chat=chat)
    ResponseObject.model_validate(made, strict=True)
    read = Response.model_validate(made)
    assert read.output_text == "Rhine"
    assert read.status == ("completed" if reason == "stop" else "incomplete")
    assert (read.completed_at is None) == (reason == "length")
    assert (read.incomplete_details is None) == (reason == "stop")
    assert (read.instructions, read.metadata, read.temperature) == ("x", {"a": "b"}, 1.0)
    assert "secret" not in json.dumps(made)
    compact = json.dumps(made, separators=(",", ":"))
    assert bool(re.match(responses.CUT, compact)) == (reason == "length")


def test_what_was_said_can_be_said_again() -> None:
    """The items of a response are its conversation, whichever way it was written."""
    asked = [{"role": "user", "content": "Name a river"}, OUTPUT_ITEM]
    turns = responses.turns_of(asked)
    assert turns == responses.turns_of(turns)
    items = responses.items_of("resp_1", asked)
    for item in items:
        ResponseMessage.model_validate(item)
    assert responses.turns_of(items) == turns
    assert spec(input=items).input[1].text == "Rhine"
    assert len({item["id"] for item in items}) == 2
    assert items == responses.items_of("resp_1", turns)
    made = responses.answered("resp_1", created_at=1, asked={}, chat=CHAT)
    assert responses.turn_of(made) == {"role": "assistant", "content": "Rhine"}


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_parts_are_one_text(texts: list[str]) -> None:
    parts = [{"type": "input_text", "text": text} for text in texts]
    items = [{"role": "user", "content": parts}]
    assert responses.chat_body(spec(input=items))["messages"][0]["content"] == "".join(texts)
    assert responses.turns_of(items)[0]["content"] == "".join(texts)


def test_models_serve_what_stands_for_something_they_serve() -> None:
    assert serves(["/v1/chat/completions"], RESPONSES)
    assert serves(["/v1/classifications"], MODERATIONS)
    assert serves(["/v1/moderations"], MODERATIONS)
    assert not serves(["/v1/completions"], RESPONSES)
    assert not serves(["/v1/responses"], "/v1/chat/completions")


# --- moderations ----------------------------------------------------------------------------------


def judged(thresholds: Thresholds = USUAL, **scores: float) -> dict[str, Any]:
    listed = [{"label": label, "score": score} for label, score in scores.items()]
    data = [{"scores": listed, "truncated": False}]
    classified = {"model": "guard", "data": data}
    made = moderations.moderation("modr-1", classified=classified, thresholds=thresholds)
    Moderations.model_validate(made, strict=True)
    ModerationCreateResponse.model_validate(made)
    (result,) = made["results"]
    return dict(result)


def test_labels_are_categories_by_their_names() -> None:
    found = judged(Self_Harm=0.9, sexual_minors=0.2, Spam=0.7)
    assert found["flagged"]
    assert {name for name, flag in found["categories"].items() if flag} == {"self-harm", "Spam"}
    assert found["category_scores"]["sexual/minors"] == 0.2
    applied = {name for name, kinds in found["category_applied_input_types"].items() if kinds}
    assert applied == {"self-harm", "sexual/minors", "Spam"}
    assert set(moderations.CATEGORIES) < set(found["categories"])


@pytest.mark.parametrize("label", ["ok", "SAFE", "not toxic", "non-toxic", "Neutral"])
def test_labels_of_harmless_texts_are_no_categories(label: str) -> None:
    found = judged(**{label: 0.99, "hate": 0.01})
    assert not found["flagged"]
    assert set(found["categories"]) == set(moderations.CATEGORIES)


def test_thresholds_are_from_where_a_category_counts() -> None:
    some = parse_thresholds("0.6, Self-Harm = 0.3, spam=off, other=0.9")
    assert judged(some, self_harm=0.3)["flagged"]
    assert not judged(some, self_harm=0.29, violence=0.59)["flagged"]
    assert judged(some, violence=0.6)["flagged"]
    assert "spam" not in judged(some, spam=1.0)["categories"]
    assert judged(some, other=0.95)["categories"]["other"]


@pytest.mark.parametrize("text", ["", "high", "1.5", "nan", "0.5,violence", "0.5,=0.2", "-0.1"])
def test_thresholds_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_thresholds(text)


def test_inputs_are_judged_one_by_one_and_parts_together() -> None:
    assert moderation_spec(input="a").inputs == ["a"]
    assert moderation_spec(input=["a", "b"], model=None).inputs == ["a", "b"]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert moderation_spec(input=parts).inputs == ["a\nb"]
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    for wrong in ([], "", [""], [picture], ["a", parts[0]], [5], {}, [{"type": "text"}]):
        with pytest.raises(InvalidRequest) as caught:
            moderation_spec(input=wrong)
        assert (caught.value.param or "").startswith("input")


def test_who_moderates() -> None:
    serving = {"a": ["/v1/classifications"], "b": ["/v1/classifications", "/v1/moderations"]}
    assert moderations.moderator(serving, "a") == "a"
    assert moderations.moderator(serving, None) == "b"
    assert moderations.moderator({"a": serving["a"]}, None) is None


INCLUDED = {"include": ["message.output_text.logprobs"]}


def test_how_likely_tokens_are_is_asked_and_told_where_it_is_included() -> None:
    asked = responses.chat_body(spec(**INCLUDED, top_logprobs=3))
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 3)
    assert responses.chat_body(spec(**INCLUDED))["top_logprobs"] == 0
    parse_body("/v1/chat/completions", asked)
    others = responses.chat_body(spec(include=["file_search_call.results"], top_logprobs=0))
    assert not {"logprobs", "top_logprobs"} & set(others)


def test_a_refusal_tells_of_no_tokens() -> None:
    content = [{"token": "{", "bytes": [123], "logprob": -1.0, "top_logprobs": []}]
    message = {"role": "assistant", "content": "{", "refusal": "no"}
    choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": content}}
    for refusal, told in (("no", None), (None, content)):
        said = choice | {"message": message | {"refusal": refusal}}
        chat = CHAT | {"choices": [said]}
        made = responses.answered("resp_1", created_at=1_800_000_000, asked={}, chat=chat)
        ResponseObject.model_validate(made, strict=True)
        assert made["output"][0]["content"][0].get("logprobs") == told


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"top_logprobs": 1}, "top_logprobs"),
        (INCLUDED | {"top_logprobs": 21}, "top_logprobs"),
        (INCLUDED | {"top_logprobs": 20, "max_output_tokens": 20_000}, "top_logprobs"),
        ({"include": ["all"]}, "include[0]"),
    ],
)
def test_what_can_not_be_told_is_refused(members: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        spec(**members)
    assert caught.value.param == param
