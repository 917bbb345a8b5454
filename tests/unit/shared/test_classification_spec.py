"""What ``/v1/classifications`` takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.specs import ClassificationSpec, parse_body
from shared.specs.classifications import MAX_SCORES
from shared.specs.embeddings import MAX_INPUTS

ENDPOINT = "/v1/classifications"


def test_one_text_or_many() -> None:
    one, many = (
        parse_body(ENDPOINT, {"model": "m", "input": text, "top_k": 3})
        for text in ("abcd", ["a", "bcdefghi"])
    )
    assert isinstance(one, ClassificationSpec)
    assert isinstance(many, ClassificationSpec)
    assert (one.inputs, many.inputs) == (["abcd"], ["a", "bcdefghi"])
    assert (one.result_count, many.result_count) == (1, 2)
    assert (one.estimated_input_tokens(), many.estimated_input_tokens()) == (2, 4)
    assert one.estimated_output_tokens(512) == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input"),
        ({"input": "a", "top_k": 0}, "top_k"),
        ({"input": "a", "top_k": MAX_SCORES + 1}, "top_k"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
        ({}, "input"),
    ],
)
def test_refusals_name_the_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_body(ENDPOINT, {"model": "m", **body})
    assert refused.value.param == param


@given(
    st.dictionaries(
        st.sampled_from(["model", "input", "top_k", "user"]), st.none() | st.text() | st.integers()
    )
)
def test_any_body_is_a_spec_or_a_refusal(body: dict[str, Any]) -> None:
    try:
        spec = parse_body(ENDPOINT, body)
    except InvalidRequest:
        return
    assert parse_body(ENDPOINT, spec.model_dump()) == spec
