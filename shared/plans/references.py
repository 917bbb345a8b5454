"""References in a step's body to results of the steps before it, and what replaces them.

A reference is a JSON object, and one of these three:

``{"$step": "speech 1", "get": "artifact_id"}``
    The value at a path (``data.0.artifact_id``) of that step's result. ``"filters"`` lists what is
    done to it, in order: names of ``shared.plans.texts``, or ``{"at_most": 80}``. ``"or"`` is the
    text to use when nothing is left of it after the filters.

``{"$captions": "speech 1"}``
    The sentences of a speech result as a scene's captions.

``{"$text": ["Say: ", {"$step": …}], "join": ""}``
    Its parts, joined to one text; empty parts are left out.

Only objects are references. A tenant's words stand in a body as strings and are never looked into,
and neither is what replaces a reference: no text, written or generated, can become one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.plans.base import PlanError
from shared.plans.texts import FILTERS, at_most

CONTENT = "choices.0.message.content"
"""Where a chat completion has its text."""

MAX_CAPTIONS = 1_000
MAX_CAPTION_CHARACTERS = 2_000
"""What a scene takes; more are merged with their neighbours."""

Reference = dict[str, Any]


def from_step(step: str, get: str) -> Reference:
    """The value at ``get`` of the result of ``step``."""
    return {"$step": step, "get": get}


def text_of(step: str, filters: Sequence[str | dict[str, int]], *, otherwise: str) -> Reference:
    """What a chat step wrote, cleaned; ``otherwise`` if that is nothing."""
    return {"$step": step, "get": CONTENT, "filters": list(filters), "or": otherwise}


def joined(*parts: str | Reference, by: str = "") -> Reference:
    return {"$text": list(parts), "join": by}


def captions_of(step: str) -> Reference:
    return {"$captions": step}


def complete(body: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The body with every reference replaced. ``results`` holds decoded results by step name.

    Raises PlanError for an unknown step, a path that leads nowhere, and whatever else is no
    reference but looks like one.
    """
    return {name: _resolve(value, results) for name, value in body.items()}


def steps_named(value: Any) -> set[str]:
    """The steps that any reference in ``value`` names."""
    if isinstance(value, list):
        return set().union(*(steps_named(item) for item in value)) if value else set()
    if not isinstance(value, dict):
        return set()
    own = {value[key] for key in ("$step", "$captions") if key in value}
    return own.union(*(steps_named(item) for item in value.values()))


def _resolve(value: Any, results: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_resolve(item, results) for item in value]
    if not isinstance(value, dict):
        return value
    marks = [key for key in value if isinstance(key, str) and key.startswith("$")]
    if not marks:
        return {name: _resolve(item, results) for name, item in value.items()}
    if len(marks) > 1 or marks[0] not in _MEMBERS:
        raise PlanError(f"no such reference: {', '.join(marks)}")
    if unknown := value.keys() - _MEMBERS[marks[0]]:
        raise PlanError(f"{marks[0]} has no member {', '.join(sorted(unknown))}")
    if marks[0] == "$text":
        return _joined(value, results)
    return _captions(value, results) if marks[0] == "$captions" else _fetched(value, results)


_MEMBERS = {
    "$step": {"$step", "get", "filters", "or"},
    "$captions": {"$captions"},
    "$text": {"$text", "join"},
}


def _joined(value: Reference, results: Mapping[str, Any]) -> str:
    parts = [_resolve(part, results) for part in value["$text"]]
    if not all(isinstance(part, str) for part in parts):
        raise PlanError("$text joins texts, and a part of it is none")
    separator: str = value.get("join", "")
    return separator.join(part for part in parts if part)


def _fetched(value: Reference, results: Mapping[str, Any]) -> Any:
    if "get" not in value:
        raise PlanError("$step needs a path in 'get'")
    found = _at(_result(value["$step"], results), value["get"], value["$step"])
    if "filters" not in value:
        return found
    if found is None:  # what some text servers answer instead of an empty text
        found = ""
    if not isinstance(found, str):
        raise PlanError(f"filters work on text, and {value['get']!r} is none")
    for wanted in value["filters"]:
        found = _filtered(found, wanted)
    return found or value.get("or", "")


def _filtered(text: str, wanted: Any) -> str:
    if isinstance(wanted, str) and wanted in FILTERS:
        return FILTERS[wanted](text)
    if isinstance(wanted, dict) and wanted.keys() == {"at_most"}:
        limit = wanted["at_most"]
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return at_most(text, limit)
    raise PlanError(f"no such filter: {wanted!r}")


def _captions(value: Reference, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    step = value["$captions"]
    spoken = _at(_result(step, results), "sentences", step)
    try:
        captions = [
            {"text": one["text"], "start": float(one["start"]), "end": float(one["end"])}
            for one in spoken
        ]
    except (TypeError, KeyError, ValueError):
        raise PlanError(f"the sentences of {step!r} have no times") from None
    while len(captions) > MAX_CAPTIONS:
        captions = [_merged(captions[at : at + 2]) for at in range(0, len(captions), 2)]
    return captions


def _merged(captions: list[dict[str, Any]]) -> dict[str, Any]:
    text = at_most(" ".join(one["text"] for one in captions), MAX_CAPTION_CHARACTERS)
    return {"text": text, "start": captions[0]["start"], "end": captions[-1]["end"]}


def _result(step: Any, results: Mapping[str, Any]) -> Any:
    if not isinstance(step, str) or step not in results:
        raise PlanError(f"no result of a step {step!r}")
    return results[step]


def _at(result: Any, path: Any, step: str) -> Any:
    found = result
    for part in str(path).split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise PlanError(f"the result of {step!r} has no {path!r}")
    return found
