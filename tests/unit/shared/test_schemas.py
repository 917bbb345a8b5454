"""JSON schemas of strangers: what is taken, and what is refused by name before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidRequest, InvalidSchema
from shared.specs import ChatCompletionSpec, ResponseSpec, parse_body, parse_body_json
from shared.specs.schemas import (
    KEYWORDS,
    MAX_BYTES,
    MAX_COUNT,
    MAX_DEPTH,
    MAX_PATTERN,
    MAX_SUBSCHEMAS,
    MAX_VALUES,
    check_schema,
    without_notes,
)
from shared.translation.responses import chat_body

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
NODE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer", "minimum": 0},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


def chat(response_format: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "response_format": response_format,
    }


def named(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        NODE,
        {"type": ["string", "null"], "pattern": "^a+$", "minLength": 1, "maxLength": 9},
        {"type": "string", "format": "date-time", "title": "When", "description": "x"},
        {"enum": [1, "a", None, {"b": [True]}]},
        {"const": {"not": "a keyword here"}},
        {"type": "object", "properties": {"not": {"type": "string"}, "$ref": True}},
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": False, "maxItems": 3},
        {"type": "number", "exclusiveMinimum": -1.5, "multipleOf": 0.5},
        {"definitions": {"a/b": {"type": "null"}}, "allOf": [{"$ref": "#/definitions/a~1b"}]},
    ],
)
def test_what_can_be_kept_is_taken(schema: dict[str, Any]) -> None:
    check_schema(schema, "schema")
    spec = parse_body(CHAT, chat(named(schema)))
    assert isinstance(spec, ChatCompletionSpec)
    assert spec.grammar is not None
    assert json.loads(spec.grammar) == without_notes(schema)


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"not": {}}, "not"),
        ({"x-guidance": {"lenient": True}}, "x-guidance"),
        ({"properties": {"a": {"uniqueItems": True}}}, "properties.a.uniqueItems"),
        ({"anyOf": [{}, {"if": {}}]}, "anyOf[1].if"),
        ({"$defs": {"a": {"$id": "x"}}}, "$defs.a.$id"),
        ({"type": "text"}, "type"),
        ({"type": []}, "type"),
        ({"type": [["string"]]}, "type"),
        ({"items": 5}, "items"),
        ({"anyOf": []}, "anyOf"),
        ({"anyOf": {"a": 1}}, "anyOf"),
        ({"properties": []}, "properties"),
        ({"properties": {"a": "string"}}, "properties.a"),
        ({"required": "a"}, "required"),
        ({"required": [1]}, "required"),
        ({"enum": []}, "enum"),
        ({"enum": 5}, "enum"),
        ({"maxItems": MAX_COUNT + 1}, "maxItems"),
        ({"minLength": -1}, "minLength"),
        ({"minLength": True}, "minLength"),
        ({"minimum": "1"}, "minimum"),
        ({"maximum": 10**400}, "maximum"),
        ({"multipleOf": 0}, "multipleOf"),
        ({"pattern": "a" * (MAX_PATTERN + 1)}, "pattern"),
        ({"patternProperties": {"a" * (MAX_PATTERN + 1): {}}}, "patternProperties"),
        ({"format": "binary"}, "format"),
        ({"format": ["date"]}, "format"),
        ({"$ref": "https://example.com/schema"}, "$ref"),
        ({"$ref": "#/$defs/missing"}, "$ref"),
        ({"$ref": "#/properties"}, "$ref"),
        ({"$ref": 5}, "$ref"),
        ({"$ref": "#/$defs/a/$defs"}, "$ref"),
        ({"$ref": "#/$defs/a/properties/b", "$defs": {"a": True}}, "$ref"),
        ({"$ref": "#/properties/a/properties/b", "properties": {"a": 5}}, "$ref"),
        ({"$ref": "#/properties/a/$defs/b", "properties": {"a": {"$defs": "b"}}}, "$ref"),
        ({"enum": list(range(MAX_VALUES + 1))}, "enum"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(schema: dict[str, Any], where: str) -> None:
    for endpoint, body, prefix in (
        (CHAT, chat(named(schema)), "response_format.json_schema.schema"),
        (
            RESPONSES,
            {
                "model": "m",
                "input": "x",
                "text": {"format": {"type": "json_schema", "name": "it", "schema": schema}},
            },
            "text.format.schema",
        ),
    ):
        with pytest.raises(InvalidSchema) as refused:
            parse_body(endpoint, body)
        assert refused.value.param == f"{prefix}.{where}"
        assert refused.value.code == "invalid_schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"description": "x" * MAX_BYTES},
        {"properties": {f"p{i}": {} for i in range(MAX_SUBSCHEMAS)}},
        {"enum": [json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))]},
        {"const": float("nan")},
        {"const": "\ud800"},
        {"const": [0] * (MAX_BYTES + 1)},
    ],
    ids=["bytes", "subschemas", "depth", "nan", "surrogate", "values"],
)
def test_what_is_too_much_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchema) as refused:
        check_schema(schema, "schema")
    assert refused.value.param == "schema"


def test_a_schema_that_is_very_deep_is_refused_and_does_not_break_the_reader() -> None:
    schema: dict[str, Any] = {}
    for _ in range(50_000):
        schema = {"items": schema}
    with pytest.raises(InvalidSchema, match="nested deeper"):
        check_schema(schema, "schema")
    while schema:  # freeing it at once would recurse as deep
        schema = schema["items"]


def test_a_long_path_is_cut() -> None:
    with pytest.raises(InvalidSchema) as refused:
        check_schema({"properties": {"p" * 5_000: {"not": {}}}}, "schema")
    assert len(refused.value.param or "") <= 300


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"type": "xml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format"),
        ({"type": "text", "json_schema": {"name": "a", "schema": {}}}, "response_format"),
        (
            {"type": "json_schema", "json_schema": {"schema": {}}},
            "response_format.json_schema.name",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
            "response_format.json_schema.name",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": []}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_a_malformed_format_is_refused(asked: dict[str, Any], param: str) -> None:
    for parse, body in ((parse_body, chat(asked)), (parse_body_json, json.dumps(chat(asked)))):
        given: Any = body.encode() if isinstance(body, str) else body
        with pytest.raises(InvalidRequest) as refused:
            parse(CHAT, given)
        assert refused.value.param == param


def test_notes_for_people_are_left_out_where_they_are_notes() -> None:
    schema = {
        "title": "An ad",
        "properties": {"title": {"type": "string", "description": "x"}},
        "required": ["title"],
        "items": {"default": 1, "anyOf": [{"title": "a"}, {"const": {"title": 1}}]},
    }
    assert without_notes(schema) == {
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "items": {"anyOf": [{}, {"const": {"title": 1}}]},
    }


def test_every_keyword_that_is_read_is_one_the_documentation_names() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "structured-output.md"
    told = page.read_text()
    assert [keyword for keyword in sorted(KEYWORDS) if f"`{keyword}`" not in told] == []


def test_json_mode_and_plain_text_need_no_schema() -> None:
    spec = parse_body(CHAT, chat({"type": "json_object"}))
    assert isinstance(spec, ChatCompletionSpec)
    assert spec.grammar == '{"type":"object"}'
    plain = parse_body(CHAT, chat({"type": "text"}))
    assert isinstance(plain, ChatCompletionSpec)
    assert plain.grammar is None


def test_a_response_asks_the_same_of_the_engine() -> None:
    asked = {"type": "json_schema", "name": "node", "schema": NODE, "strict": None}
    spec = parse_body(RESPONSES, {"model": "m", "input": "x", "text": {"format": asked}})
    assert isinstance(spec, ResponseSpec)
    engine = parse_body(CHAT, chat_body(spec))
    assert isinstance(engine, ChatCompletionSpec)
    assert json.loads(engine.grammar or "") == NODE


def together(count: int) -> dict[str, Any]:
    """A text that has to match so many patterns."""
    return {"allOf": [{"type": "string", "pattern": f"a.{{{n}}}b"} for n in range(count)]}


def chained(count: int, keyword: str) -> dict[str, Any]:
    """The same, by other ways."""
    links = {
        f"a{n}": {
            "pattern": f"a.{{{n}}}b",
            **({"$ref": f"#/$defs/a{n + 1}"} if keyword == "$ref" else
               {keyword: [{"$ref": f"#/$defs/a{n + 1}"}]}),
        }
        for n in range(count)
    }  # fmt: skip
    return {"$ref": "#/$defs/a0", "$defs": links | {f"a{count}": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (together(20), "hold together"),
        (chained(20, "$ref"), "hold together"),
        (chained(20, "anyOf"), "hold together"),
        (chained(20, "oneOf"), "hold together"),
        (chained(20, "allOf"), "hold together"),
        ({"allOf": [{"multipleOf": prime} for prime in (7, 11, 13, 17)]}, "'multipleOf'"),
        ({"type": "integer", "multipleOf": 99_991}, "'multipleOf'"),
        ({"type": "number", "multipleOf": 1e-300}, "'multipleOf'"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_what_would_keep_a_compiler_busy_for_ever_is_refused(
    schema: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidSchema, match=said):
        check_schema(schema, "schema")


def test_patterns_that_do_not_meet_may_be_many() -> None:
    dates = {f"d{n}": {"type": "string", "format": "date", "pattern": "^2"} for n in range(50)}
    prices = {f"p{n}": {"type": "number", "multipleOf": 0.01} for n in range(50)}
    check_schema({"type": "object", "properties": dates | prices}, "schema")
    check_schema({"allOf": [{"multipleOf": 0.01}, {"multipleOf": 25}]}, "schema")
    check_schema(together(8), "schema")
