"""Finished answers against their schemas, and the bound on what that may take."""

from __future__ import annotations

from typing import Any

import pytest

from worker.engines.schema_checks import AnswerCheck

LEVELS = 60


def doubling(keyword: str) -> dict[str, Any]:
    """Two ways, at each level, to come to the next: 2 ** LEVELS looks at a small answer."""

    def both(level: int) -> list[dict[str, Any]]:
        inner = {"$ref": f"#/$defs/d{level + 1}"}
        return [{"type": "object", "properties": {"a": inner}} for _ in range(2)]

    steps = {f"d{level}": {keyword: both(level)} for level in range(LEVELS)}
    return {"$ref": "#/$defs/d0", "$defs": {**steps, f"d{LEVELS}": {"type": "object"}}}


@pytest.mark.parametrize(
    ("schema", "text", "why"),
    [
        ({"type": "integer"}, "5", None),
        ({"type": "integer"}, "5.5", "does not satisfy"),
        ({"type": "object"}, '{"a": 1', "not a whole JSON text"),
        ({"type": "object"}, "", "not a whole JSON text"),
        ({"type": "array"}, "[" * 100_000, "not a whole JSON text"),
        ({"minProperties": 2}, '{"a": 1, "a": 2}', "does not satisfy"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "1", "does not satisfy"),
        ({"pattern": "^(a|a)*$"}, '"' + "a" * 40 + 'b"', "does not satisfy"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "1", None),
    ],
)
def test_what_is_said_of_an_answer(schema: dict[str, Any], text: str, why: str | None) -> None:
    flaw = AnswerCheck(schema).flaw(text)
    if why is None:
        assert flaw is None
    else:
        assert flaw is not None
        assert why in flaw


@pytest.mark.parametrize("keyword", ["allOf", "anyOf"])
def test_a_check_that_would_take_for_ever_is_not_begun(keyword: str) -> None:
    check = AnswerCheck(doubling(keyword))
    deep = '{"a":' * (LEVELS - 1) + "5" + "}" * (LEVELS - 1)
    assert check.flaw(deep) == "it takes too long to check it against its schema"
    assert check.flaw('{"a": {"a": {}}}') is None


def test_a_long_answer_is_not_a_costly_one() -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "null"}}}}
    text = "[" + ",".join(['{"a":null}'] * 20_000) + "]"
    assert AnswerCheck(schema).flaw(text) is None


def test_nothing_is_fetched() -> None:
    with pytest.raises(ValueError, match="nothing is fetched"):
        AnswerCheck({"$ref": "https://example.com/schema"})
