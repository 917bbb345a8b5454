"""JSON schemas that strangers send: what is read of them, and what is refused by name. Pure.

Engines turn a schema into a grammar. What they could not keep is refused here already, when the
work is accepted, with the place in the schema; nothing is ignored but notes for people.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from shared.errors import InvalidSchema
from shared.specs.schema_joins import Joins

MAX_BYTES = 65_536
"""Of the schema as JSON."""
MAX_DEPTH = 64
"""Of any nesting in it, as of brackets."""
MAX_SUBSCHEMAS = 1_000
MAX_VALUES = 1_000
"""In all its enums together."""
MAX_PATTERN = 512
"""Characters of one regular expression."""
MAX_COUNT = 100_000
"""What lengths and counts may be limited to."""
LARGEST_NUMBER = 10**15
FORMATS = (
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
)  # fmt: skip
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_MAX_PARAM = 300


def check_schema(schema: Any, param: str) -> None:
    """Raises InvalidSchema, whose ``param`` is a path below ``param``, for a schema that is too
    large, malformed, or says what is not supported."""
    _check_size(schema, param)
    values, joins = 0, Joins()
    for number, (path, found) in enumerate(_subschemas(schema, param), 1):
        if number > MAX_SUBSCHEMAS:
            raise _refuse(param, f"more than {MAX_SUBSCHEMAS} subschemas")
        for keyword, value in found.items():
            check = _CHECKS.get(keyword)
            if check is None:
                raise _refuse(f"{path}.{keyword}", f"{keyword[:100]!r} is not supported")
            wrong = check(value)
            if wrong:
                raise _refuse(f"{path}.{keyword}", wrong)
        values += len(found.get("enum", ()))
        if values > MAX_VALUES:
            raise _refuse(f"{path}.enum", f"more than {MAX_VALUES} values in the schema's enums")
        if "$ref" in found:
            _check_reference(schema, found["$ref"], path)
        joins.add(found)
    if problem := joins.problem():
        raise _refuse(param, problem)


def _refuse(path: str, why: str) -> InvalidSchema:
    place = path if len(path) <= _MAX_PARAM else f"{path[: _MAX_PARAM - 1]}…"
    return InvalidSchema(f"{place}: {why}", param=place)


def _check_size(schema: Any, param: str) -> None:
    level: list[Any] = [schema]
    seen = 0
    for _ in range(MAX_DEPTH):
        seen += len(level)
        if seen > MAX_BYTES:  # each takes a byte at least
            raise _refuse(param, f"too large: the limit is {MAX_BYTES} bytes")
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            break
    else:
        raise _refuse(param, f"nested deeper than {MAX_DEPTH} levels")
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:
        raise _refuse(param, f"not JSON: {error}"[:200]) from None
    if size > MAX_BYTES:
        raise _refuse(param, f"{size} bytes are too many: the limit is {MAX_BYTES}")


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _subschemas(schema: Any, param: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in ``schema`` that is an object, itself first, with its path."""
    waiting = deque([(param, schema)])
    while waiting:
        path, found = waiting.popleft()
        if isinstance(found, bool):
            continue
        if not isinstance(found, dict):
            raise _refuse(path, "a schema is an object or a boolean")
        yield path, found
        for keyword, value in found.items():
            place = f"{path}.{keyword}"
            if keyword in _ONE:
                waiting.append((place, value))
            elif keyword in _SEVERAL:
                waiting += [(f"{place}[{i}]", one) for i, one in enumerate(value)]
            elif keyword in _NAMED:
                waiting += [(f"{place}.{name}", one) for name, one in value.items()]


def _check_reference(schema: Any, reference: str, path: str) -> None:
    try:
        resolve(schema, reference)
    except LookupError:
        why = "must name a place in this schema, such as '#/$defs/name'"
        raise _refuse(f"{path}.$ref", why) from None


def resolve(schema: Any, reference: str) -> Any:
    """What a ``$ref`` names inside ``schema``. Raises LookupError."""
    if reference == "#":
        return schema
    beginning, *keys = reference.split("/")
    found = schema
    if beginning != "#" or len(keys) % 2 or not set(keys[::2]) <= _HOLDERS or "%" in reference:
        raise LookupError(reference)
    for key in keys:
        name = key.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise LookupError(reference)
        found = found[name]
    if not isinstance(found, dict | bool):
        raise LookupError(reference)
    return found


# --- keywords: each with a function that says what is wrong with its value, or "" -----------------


def _any(_: Any) -> str:
    return ""


def _is_text(value: Any) -> str:
    return "" if isinstance(value, str) else "must be a string"


def _is_schema(value: Any) -> str:
    return "" if isinstance(value, dict | bool) else "must be a schema"


def _is_list(value: Any) -> str:
    return "" if isinstance(value, list) and value else "must be a list that is not empty"


def _is_map(value: Any) -> str:
    return "" if isinstance(value, dict) else "must be an object"


def _is_pattern_map(value: Any) -> str:
    if not isinstance(value, dict):
        return "must be an object"
    return next((wrong for pattern in value if (wrong := _is_pattern(pattern))), "")


def _is_count(value: Any) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return "" if fits else f"must be a whole number from 0 to {MAX_COUNT}"


def _is_number(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = number and -LARGEST_NUMBER <= value <= LARGEST_NUMBER  # which nan is not
    return "" if fits else f"must be a number, at most {LARGEST_NUMBER:.0e} either way"


def _is_divisor(value: Any) -> str:
    return _is_number(value) or ("" if value > 0 else "must be greater than 0")


def _is_pattern(value: Any) -> str:
    if not isinstance(value, str):
        return "must be a string"
    return "" if len(value) <= MAX_PATTERN else f"longer than {MAX_PATTERN} characters"


def _is_format(value: Any) -> str:
    return "" if value in FORMATS else f"must be one of {', '.join(FORMATS)}"


def _is_type(value: Any) -> str:
    several = isinstance(value, list) and value
    known = all(name in TYPES for name in (value if several else [value]))
    return "" if known else f"must be one or several of {', '.join(TYPES)}"


def _is_names(value: Any) -> str:
    named = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return "" if named else "must be a list of names"


_ONE = {"items", "additionalProperties"}
_SEVERAL = {"anyOf", "oneOf", "allOf", "prefixItems"}
_NAMED = {"properties", "patternProperties", "$defs", "definitions"}
_HOLDERS = {"$defs", "definitions", "properties"}
"""Where references may lead."""
_NOTES = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema",
    "$comment", "discriminator",
}  # fmt: skip
"""What is said to people, and to tools that make code."""
_CHECKS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(_NOTES, _any),
    **dict.fromkeys(_ONE, _is_schema),
    **dict.fromkeys(_SEVERAL, _is_list),
    **dict.fromkeys(_NAMED, _is_map),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        _is_count,
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    "patternProperties": _is_pattern_map,
    "multipleOf": _is_divisor,
    "type": _is_type,
    "enum": _is_list,
    "const": _any,
    "required": _is_names,
    "pattern": _is_pattern,
    "format": _is_format,
    "$ref": _is_text,
}
KEYWORDS = frozenset(_CHECKS)
"""All that are read."""


def without_notes(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` without what is only said to people: schemas that ask the same are the same."""
    kept: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _NOTES:
            continue
        if keyword in _ONE:
            kept[keyword] = _plain(value)
        elif keyword in _SEVERAL:
            kept[keyword] = [_plain(one) for one in value]
        elif keyword in _NAMED:
            kept[keyword] = {name: _plain(one) for name, one in value.items()}
        else:
            kept[keyword] = value
    return kept


def _plain(schema: Any) -> Any:
    return without_notes(schema) if isinstance(schema, dict) else schema
