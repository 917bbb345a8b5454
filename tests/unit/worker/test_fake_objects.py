"""What the fake engine says where its answer is held to a schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from shared.errors import InvalidSchema
from shared.specs.formats import UNFINISHED
from worker.engines.fake_responses import fake_result

CHAT = "/v1/chat/completions"


def body(schema: Any, **more: Any) -> bytes:
    named = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    message = {"role": "user", "content": "x"}
    return json.dumps({"messages": [message], "response_format": named, **more}).encode()


def choices(schema: Any, **more: Any) -> list[dict[str, Any]]:
    answer = json.loads(fake_result(CHAT, body(schema, **more), "fake").body)
    return list(answer["choices"])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"enum": ["a, b", "c"]},
        {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"},
        {"type": "string", "format": "uuid"},
        {"type": "string", "minLength": 300},
        {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 4},
        {
            "$ref": "#/$defs/n",
            "$defs": {
                "n": {
                    "type": "object",
                    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
                    "required": ["next"],
                }
            },
        },
    ],
)
def test_it_satisfies_the_schema(schema: dict[str, Any]) -> None:
    said = choices(schema, n=8)
    for choice in said:
        assert (choice["finish_reason"], choice["message"]["refusal"]) == ("stop", None)
        jsonschema_rs.validate(schema, json.loads(choice["message"]["content"]))
    assert choices(schema, n=8) == said


def test_a_limit_cuts_it_and_it_says_so() -> None:
    schema = {"type": "array", "items": {"const": 1}, "minItems": 4, "maxItems": 4}
    [choice] = choices(schema, max_tokens=2)
    assert choice["message"] == {"role": "assistant", "content": "[1,1,", "refusal": UNFINISHED}
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"type": "string", "pattern": "(?=a)b"}])
def test_what_nothing_satisfies_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchema) as refused:
        choices(schema)
    assert refused.value.param == "response_format"
