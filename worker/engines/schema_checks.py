"""Whether a finished answer is what its schema asks: the last word, after constrained decoding.

A grammar departs from its schema in a few places (``docs/structured-output.md`` lists them), and
texts are cut. Checks are bounded: a schema can be written so that looking at a small answer takes
for ever.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs

from shared.specs.schemas import resolve

MOST_EVALUATIONS = 200_000
"""Of subschemas on parts of one answer; the library makes millions in a second."""
_MOST_MESSAGE = 300

_APPLIED_IN_PLACE = ("anyOf", "oneOf", "allOf")


class AnswerCheck:
    """Checks answers against one schema. Safe on any thread."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises ValueError for a schema that can't be used."""
        self._schema = schema
        self._validator = jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=False,
            retriever=_nothing_else,
            pattern_options=jsonschema_rs.RegexOptions(),
        )

    def flaw(self, text: str) -> str | None:
        """Why ``text`` is not what the schema asks; None when it is."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return "it is not a whole JSON text"
        if _Cost(self._schema).of(value) > MOST_EVALUATIONS:
            return "it takes too long to check it against its schema"
        try:
            self._validator.validate(value)
        except (ValueError, RecursionError) as error:
            found = getattr(error, "message", str(error))
            return f"it does not satisfy its schema: {found}"[:_MOST_MESSAGE]
        return None


def _nothing_else(uri: str) -> Any:
    raise ValueError(f"nothing is fetched: {uri}")


class _Cost:
    """How many times some subschema is held against some part of a value, at most.

    Counted with a memory, so that counting is quick where checking would not be.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[tuple[int, int], int] = {}

    def of(self, value: Any) -> int:
        """More than MOST_EVALUATIONS is not counted exactly."""
        try:
            return self._on(self._root, value)
        except RecursionError:
            return MOST_EVALUATIONS + 1

    def _on(self, schema: Any, value: Any) -> int:
        if not isinstance(schema, dict):
            return 1
        key = id(schema), id(value)
        if key not in self._known:
            if len(self._known) > MOST_EVALUATIONS:
                return MOST_EVALUATIONS + 1
            self._known[key] = 1  # a schema that refers to itself in place adds nothing
            in_place = sum(self._on(one, value) for one in self._in_place(schema))
            inside = sum(self._on(one, part) for one, part in _below(schema, value))
            self._known[key] = min(1 + in_place + inside, MOST_EVALUATIONS + 1)
        return self._known[key]

    def _in_place(self, schema: dict[str, Any]) -> list[Any]:
        found = [one for keyword in _APPLIED_IN_PLACE for one in schema.get(keyword, ())]
        if "$ref" in schema:
            found.append(resolve(self._root, schema["$ref"]))
        return found


def _below(schema: dict[str, Any], value: Any) -> list[tuple[Any, Any]]:
    """Subschemas with the parts of ``value`` that they may be held against."""
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        rest = schema.get("items")
        pairs = list(zip(first, value, strict=False))
        return pairs + ([] if rest is None else [(rest, part) for part in value[len(first) :]])
    if not isinstance(value, dict):
        return []
    properties = schema.get("properties", {})
    wide = [*schema.get("patternProperties", {}).values()]
    wide += [schema["additionalProperties"]] if "additionalProperties" in schema else []
    pairs = [(properties[name], part) for name, part in value.items() if name in properties]
    return pairs + [(one, part) for one in wide for part in value.values()]
