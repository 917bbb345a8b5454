"""JSON schemas of strangers: bounded, without anything to fetch, checked in linear time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shared.errors import InvalidSchema
from shared.productions.head import refused
from shared.productions.table_lines import value_problem
from shared.specs.schemas import check_schema as check_for_engines

MOST_BYTES = 65_536
MOST_DEPTH = 16
MOST_PARTS = 5_000
"""Of the schema with each ``$ref`` written out: what an answer can be checked against."""
MOST_PATTERN = 1_000
"""Characters of a regular expression."""
PATTERN_BYTES = 2**20
"""Of a compiled regular expression."""
MOST_ANSWER = 2_000_000
"""Characters of a text that is checked."""

_ELSEWHERE = frozenset(
    {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor",
     "$vocabulary", "id"}
)  # fmt: skip
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"const", "enum", "default", "examples"})


class Schema:
    """A schema that was checked, and answers that are checked by it."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises ``jsonschema_rs.ValidationError`` for what is no schema."""
        import jsonschema_rs

        self._validator = jsonschema_rs.Draft202012Validator(
            schema,
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES
            ),
            offline=True,
        )

    def problem(self, text: str) -> str | None:
        """What is wrong with an answer; it is JSON and nothing else."""
        if len(text) > MOST_ANSWER:
            return f"it is longer than {MOST_ANSWER} characters"
        try:
            value = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            return f"it is not valid JSON: {str(error)[:200]}"
        problem = value_problem(value)
        if problem is not None:
            return problem
        for wrong in self._validator.iter_errors(value):
            where = _named(wrong.instance_path)
            return f"{where}: {wrong.message}"[:500] if where else wrong.message[:500]
        return None


def check_schema(schema: dict[str, Any], name: str, line: int) -> None:
    """Raises InvalidRequest for a schema that can't be used, here or by the engines that every
    answer comes of; the message names the path in it."""
    import jsonschema_rs

    try:
        _check_bounds(schema)
        Schema(schema)
        check_for_engines(schema, name)
    except InvalidSchema as error:
        raise refused(line, error.message, f"template.{error.param}") from None
    except _Bad as bad:
        where = _named([name, *bad.path])
        raise refused(line, f"{where}: {bad.message}", f"template.{where}") from None
    except jsonschema_rs.ValidationError as error:
        where = _named([name, *error.instance_path])
        message = error.message[:300]
        if message.endswith('is not a "regex"'):
            message += " that is taken: no look-around, no back-references, not too large"
        raise refused(line, f"{where}: {message}", f"template.{where}") from None
    except RecursionError:
        raise refused(line, f"{name}: it is nested too deeply", f"template.{name}") from None
    except (ValueError, TypeError) as error:
        raise refused(line, f"{name}: {str(error)[:300]}", f"template.{name}") from None


class _Bad(Exception):
    def __init__(self, message: str, path: list[str | int]) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


def _check_bounds(schema: dict[str, Any]) -> None:
    try:
        size = len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "replace"))
    except (TypeError, ValueError, RecursionError):
        raise _Bad("it is not JSON", []) from None
    if size > MOST_BYTES:
        raise _Bad(f"a schema has at most {MOST_BYTES} bytes", [])
    if schema.get("$schema", _DIALECT) not in (_DIALECT, f"{_DIALECT}#"):
        raise _Bad(f"only {_DIALECT} is known", ["$schema"])
    _Walk(schema).weight(schema, [], ())


class _Walk:
    """Counts what a schema amounts to, each reference being what it refers to."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}

    def weight(self, schema: Any, path: list[str | int], inside: tuple[str, ...]) -> int:
        """``inside`` are the references that lead here. Raises _Bad."""
        if not isinstance(schema, dict):
            return 1
        if len(path) > 2 * MOST_DEPTH:
            raise _Bad(f"nested more than {MOST_DEPTH} deep", path)
        total = 1
        for key, value in schema.items():
            here = [*path, key]
            if key in _ELSEWHERE:
                raise _Bad("it can't be used in schemas here", here)
            if key == "$ref":
                total += self._referred(value, here, inside)
            elif key == "pattern" and isinstance(value, str) and len(value) > MOST_PATTERN:
                raise _Bad(f"a pattern has at most {MOST_PATTERN} characters", here)
            elif key not in _DATA:
                total += sum(
                    self.weight(part, where, inside) for part, where in _parts(key, value, here)
                )
            if total > MOST_PARTS:
                raise _Bad(f"with its references it has more than {MOST_PARTS} parts", path)
        return total

    def _referred(self, target: Any, path: list[str | int], inside: tuple[str, ...]) -> int:
        if not isinstance(target, str) or not target.startswith("#/"):
            raise _Bad("a reference begins with '#/': nothing is fetched", path)
        if target in inside:
            raise _Bad("a schema can't refer to itself", path)
        if len(inside) >= MOST_DEPTH:
            raise _Bad(f"references lead to references more than {MOST_DEPTH} times", path)
        if target not in self._known:
            found, there = self._found(target, path)
            self._known[target] = self.weight(found, there, (*inside, target))
        return self._known[target]

    def _found(self, target: str, path: list[str | int]) -> tuple[Any, list[str | int]]:
        """The part that a reference is to, and its path."""
        found: Any = self._root
        there: list[str | int] = []
        for part in target[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            there.append(key)
            if not isinstance(found, dict) or key not in found:
                raise _Bad(f"there is no '{target[:80]}'", path)
            found = found[key]
        return found, there


def _parts(key: str, value: Any, path: list[str | int]) -> Iterator[tuple[Any, list[str | int]]]:
    """The schemas right below a keyword."""
    if key in _MAPS and isinstance(value, dict):
        for name, part in value.items():
            if key == "patternProperties" and len(name) > MOST_PATTERN:
                raise _Bad(f"a pattern has at most {MOST_PATTERN} characters", path)
            yield part, [*path, name]
    elif isinstance(value, dict):
        yield value, path
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield part, [*path, at]


def _named(path: list[str | int]) -> str:
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
