"""From a form to the JSON body that it stands for.

OpenAI's clients send calls that bring files as multipart: numbers as text, lists as ``image[]`` or
repeated fields, objects as ``input_reference[file_id]``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shared.errors import InvalidRequest

_NAME = re.compile(r"([a-z_]{1,64})((?:\[[a-z_]{0,64}\]){0,2})\Z", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?\Z", re.ASCII)
_BOOLEANS = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}


def form_body(spec: type[BaseModel], parts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The body for an endpoint whose bodies are ``spec``. Raises InvalidRequest for names that are
    no names, and for a field that is given in two ways."""
    body: dict[str, Any] = {}
    for name, text in parts:
        match = _NAME.match(name)
        if match is None:
            raise InvalidRequest("a field's name is not one that this call has")
        value = _value(spec.model_fields.get(match[1]), text)
        _put(body, match[1], re.findall(r"\[([a-z_]*)\]", match[2]), value)
    return body


def _put(body: dict[str, Any], name: str, inside: list[str], value: Any) -> None:
    if not inside:
        given = body.get(name)
        if not isinstance(given, dict):
            several = given if isinstance(given, list) else [given]
            body[name] = [*several, value] if name in body else value
            return
    elif inside[0] == "":
        given = body.setdefault(name, [])
        if isinstance(given, list):
            given.append(_nested(inside[1:], value))
            return
    else:
        given = body.setdefault(name, {})
        if isinstance(given, dict) and inside[0] not in given:
            given[inside[0]] = _nested(inside[1:], value)
            return
    raise InvalidRequest(f"'{name}' is given in two ways", param=name)


def _nested(inside: list[str], value: Any) -> Any:
    if not inside:
        return value
    return [value] if inside[0] == "" else {inside[0]: value}


def _value(field: FieldInfo | None, text: str) -> Any:
    """The text as what the field takes; as it is when the field takes text, or is to refuse it."""
    kinds = set() if field is None else _kinds(field.annotation)
    if str in kinds:
        return text
    if bool in kinds and text in _BOOLEANS:
        return _BOOLEANS[text]
    if kinds & {int, float} and _NUMBER.match(text):
        return float(text) if "." in text else int(text)
    return text


def _kinds(annotation: Any) -> set[Any]:
    """The plain types among an annotation's alternatives."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return {kind for part in get_args(annotation) for kind in _kinds(part)}
    return {annotation} if isinstance(annotation, type) else {str}
