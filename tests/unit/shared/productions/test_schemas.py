"""Schemas come from strangers, too."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.productions.schemas import Schema, check_schema


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """Small, and 2 ** levels checks of every answer."""
    defs = {
        f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}, {"$ref": f"#/$defs/a{n + 1}"}]}
        for n in range(levels)
    }
    return {"$ref": "#/$defs/a0", "$defs": defs | {f"a{levels}": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "where", "said"),
    [
        ({"type": "strin"}, "schema.type", "strin"),
        ({"properties": {"a": {"minLength": "x"}}}, "schema.properties.a.minLength", "x"),
        ({"$ref": "http://127.0.0.1/x"}, "schema.$ref", "nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "schema.$ref", "nothing is fetched"),
        ({"items": {"$ref": "#/$defs/a"}}, "schema.items.$ref", "there is no"),
        ({"$ref": "#"}, "schema.$ref", "nothing is fetched"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "schema.$defs.a.$ref",
         "itself"),
        ({"$id": "http://example.com/"}, "schema.$id", "can't be used"),
        ({"$schema": "http://example.com/"}, "schema.$schema", "only"),
        ({"$schema": 3}, "schema.$schema", "only"),
        ({"pattern": "(?=a)b"}, "schema.pattern", "look-around"),
        ({"pattern": r"(a)\1"}, "schema.pattern", "back-references"),
        ({"pattern": "(a{1000}){1000}"}, "schema.pattern", "too large"),
        ({"pattern": "a" * 1_001}, "schema.pattern", "1000 characters"),
        ({"patternProperties": {"(?!x)": {}}}, "schema.patternProperties.(?!x)", "look-around"),
        ({"patternProperties": {"a" * 1_001: {}}}, "schema.patternProperties", "1000 characters"),
        ({"description": "x" * 70_000}, "schema", "65536 bytes"),
        (deep(20), "schema", "16 deep"),
        (doubling(14), "schema", "5000 parts"),
        (doubling(30), "schema", "more than 16 times"),
        ({"properties": {"a": {"not": {"type": "null"}}}}, "schema.properties.a.not",
         "not supported"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems", "not supported"),
        ({"maximum": 1e300}, "schema.maximum", "1e+15"),
    ],
    ids=lambda part: str(part)[:24],
)  # fmt: skip
def test_what_no_schema_may_be(schema: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        check_schema(schema, "schema", 5)
    assert error.value.message.startswith(f"line 5: {where}")
    assert said in error.value.message
    assert len(error.value.message) < 1_000


def test_what_schemas_are_for() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^[a-z]+$"},
            "size": {"$ref": "#/$defs/size"},
            "const": {"const": {"$ref": "is data here"}},
        },
        "additionalProperties": False,
        "$defs": {"size": {"enum": ["s", "m", {"$id": 1}]}},
    }
    check_schema(schema, "schema", 1)
    check_schema(deep(10), "schema", 1)
    check_schema(doubling(5), "schema", 1)
    checked = Schema(schema)
    assert checked.problem('{"id": "abc", "size": "m"}') is None
    assert "size" in (checked.problem('{"size": "xl"}') or "")
    assert "id" in (checked.problem('{"id": "A"}') or "")


def test_no_pattern_backtracks() -> None:
    checked = Schema({"type": "string", "pattern": "^(a+)+$"})
    assert checked.problem('"' + "a" * 100_000 + '"') is None
    assert checked.problem('"' + "a" * 100_000 + '!"') is not None
    nested = Schema({"type": "string", "pattern": "^((a|a)*)*$"})
    assert nested.problem('"' + "a" * 100_000 + 'b"') is not None
