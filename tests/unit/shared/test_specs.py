"""Bodies of inference calls: what is taken, what is refused, and how it is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import (
    InvalidRequest,
    PressrunError,
    StreamingUnsupported,
    UnsupportedEndpoint,
    UnsupportedParameter,
)
from shared.specs import (
    ChatCompletionSpec,
    CompletionSpec,
    EmbeddingSpec,
    parse_body,
    parse_body_json,
    spec_for,
)

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> ChatCompletionSpec:
    spec = parse_body(CHAT, {"model": "m", "messages": MESSAGES} | fields)
    assert isinstance(spec, ChatCompletionSpec)
    return spec


def refused(endpoint: str, body: Any) -> PressrunError:
    with pytest.raises(InvalidRequest) as from_object:
        parse_body(endpoint, body)
    with pytest.raises(InvalidRequest) as from_json:
        parse_body_json(endpoint, json.dumps(body).encode())
    assert from_object.value.code == from_json.value.code
    assert from_object.value.param == from_json.value.param
    return from_object.value


def test_a_chat_body_with_its_defaults() -> None:
    spec = chat()
    assert (spec.temperature, spec.top_p, spec.n, spec.max_new_tokens) == (1.0, 1.0, 1, None)
    assert spec.stop_sequences == []
    assert spec.estimated_output_tokens(512) == 512


def test_null_means_not_given() -> None:
    assert chat(temperature=None, stop=None, max_tokens=None, n=None) == chat()


def test_either_name_of_the_token_limit_but_not_both() -> None:
    assert chat(max_tokens=7).max_new_tokens == chat(max_completion_tokens=7).max_new_tokens == 7
    error = refused(CHAT, {"model": "m", "messages": MESSAGES, "max_tokens": 1,
                           "max_completion_tokens": 1})  # fmt: skip
    assert "only one" in error.message


def test_content_may_be_text_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].text == "ab"
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    refused(CHAT, {"model": "m", "messages": [{"role": "user", "content": image}]})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": 17}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "8"}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "judge", "content": "b"}]},
         "messages[1].role"),
        ({"model": ""}, "model"),
        ({"user": "x" * 257}, "user"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 0}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": True}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 20, "max_tokens": 20_000}, "top_logprobs"),
        ({"logprobs": True, "n": 3, "max_tokens": 131_072}, "logprobs"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(fields: dict[str, Any], param: str) -> None:
    error = refused(CHAT, {"model": "m", "messages": MESSAGES} | fields)
    assert (error.code, error.param) == ("invalid_request", param)


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(name: str) -> None:
    body = {"model": "m", "messages": MESSAGES}
    del body[name]
    error = refused(CHAT, body)
    assert (error.param, error.message) == (name, f"'{name}' is required")


def test_what_is_not_implemented_is_refused_and_not_ignored() -> None:
    error = refused(CHAT, {"model": "m", "messages": MESSAGES, "tools": []})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "tools"
    error = refused(CHAT, {"model": "m", "messages": MESSAGES, "stream": True})
    assert isinstance(error, StreamingUnsupported)


def test_unknown_endpoints_are_refused() -> None:
    with pytest.raises(UnsupportedEndpoint) as caught:
        spec_for("/v1/edits")
    assert caught.value.param == "endpoint"


def test_completions_estimate_all_their_prompts() -> None:
    spec = parse_body(COMPLETIONS, {"model": "m", "prompt": ["abcd", "efgh"], "n": 3})
    assert isinstance(spec, CompletionSpec)
    assert (spec.max_new_tokens, spec.estimated_output_tokens(512)) == (16, 16 * 3 * 2)
    assert spec.estimated_input_tokens() == 2
    assert refused(COMPLETIONS, {"model": "m", "prompt": []}).param == "prompt"


def test_embeddings_take_one_text_or_many_but_none_empty() -> None:
    one, many = (
        parse_body(EMBEDDINGS, {"model": "m", "input": text}) for text in ("a", ["a", "b"])
    )
    assert isinstance(one, EmbeddingSpec)
    assert isinstance(many, EmbeddingSpec)
    assert (one.inputs, many.inputs) == (["a"], ["a", "b"])
    assert one.estimated_output_tokens(512) == 0
    assert refused(EMBEDDINGS, {"model": "m", "input": ""}).param == "input"
    assert (
        refused(EMBEDDINGS, {"model": "m", "input": "a", "temperature": 1}).param == "temperature"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\x00",
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 6_000 + b"}",
        b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["empty", "cut", "list", "null", "text", "nul", "surrogate", "latin", "nan", "infinity",
         "digits", "depth"],
)  # fmt: skip
def test_malformed_json_is_refused_with_a_code(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_body_json(CHAT, body)
    assert caught.value.code == "invalid_request"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(["model", "messages", "prompt", "input", "n", "stop", "stream", "seed"])


@given(
    st.sampled_from([CHAT, COMPLETIONS, EMBEDDINGS]),
    st.dictionaries(NAMES | st.text(), JSON) | JSON,
)
def test_any_body_is_a_spec_or_a_refusal(endpoint: str, body: Any) -> None:
    try:
        spec = parse_body(endpoint, body)
    except InvalidRequest:
        return
    assert parse_body(endpoint, spec.model_dump()) == spec


@pytest.mark.parametrize("end", [float("inf"), float("nan"), -1.0])
def test_captions_end_at_a_moment(end: float) -> None:
    scene = {"seconds": 1.0, "captions": [{"text": "Hello", "start": 0.0, "end": end}]}
    error = refused("/v1/videos/compositions", {"model": "composer", "scenes": [scene]})
    assert error.param == "scenes[0].captions[0].end"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [({}, None), ({"logprobs": None}, None), ({"logprobs": 0}, 0), ({"logprobs": 5}, 5)],
)
def test_a_completion_says_how_many_likely_tokens_it_wants(
    fields: dict[str, Any], wanted: int | None
) -> None:
    spec = parse_body(COMPLETIONS, {"model": "m", "prompt": "a"} | fields)
    assert isinstance(spec, CompletionSpec)
    assert spec.alternatives == wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_a_chat_says_how_many_likely_tokens_it_wants(
    fields: dict[str, Any], wanted: int | None
) -> None:
    assert chat(**fields).alternatives == wanted


@pytest.mark.parametrize("fields", [{"logprobs": 6}, {"logprobs": True}, {"logprobs": 1}])
def test_a_completion_that_repeats_its_prompt_tells_no_logprobs(fields: dict[str, Any]) -> None:
    """And none more than five."""
    error = refused(COMPLETIONS, {"model": "m", "prompt": "a", "echo": True} | fields)
    assert error.param == "logprobs"


@pytest.mark.parametrize(
    "fields",
    [{"best_of": 0}, {"best_of": 17}, {"best_of": 2, "n": 3}, {"best_of": 2, "stream": True}],
)
def test_the_best_of_how_many_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_body(COMPLETIONS, {"model": "m", "prompt": "a"} | fields, streams=True)
    assert caught.value.param == "best_of"


def test_all_that_is_generated_is_estimated() -> None:
    spec = parse_body(COMPLETIONS, {"model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 5})
    assert spec.result_count == 4
    assert spec.estimated_output_tokens(1) == 16 * 5 * 2
