"""JSON of a stranger's: bounded, shallow, no member twice, text that can be stored."""

from __future__ import annotations

import json
from typing import Any

from worker.tuning.data.example import Refused

MOST_DEPTH = 12
"""Objects and lists inside one another; configurations have four at most."""
INVALID = "invalid_json"


def decode(data: bytes, *, most_depth: int = MOST_DEPTH) -> Any:
    """The document. Raises Refused ``invalid_json``."""
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_constant)
        _check_depth(found, most_depth)
        # Half of a surrogate pair can neither be stored nor be written as UTF-8.
        json.dumps(found, ensure_ascii=False).encode()
    except (UnicodeError, ValueError, RecursionError):
        raise Refused(INVALID, "it is not JSON in UTF-8") from None
    return found


def decode_object(data: bytes) -> dict[str, Any]:
    """A document that is an object. Raises Refused ``invalid_json``."""
    found = decode(data)
    if not isinstance(found, dict):
        raise Refused(INVALID, "it is not a JSON object")
    return found


def encode(document: Any) -> bytes:
    """As it is stored: the same bytes for the same document."""
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _check_depth(document: Any, most: int) -> None:
    """The parser itself gives up at the depth of Python's stack."""
    level = [document]
    for _ in range(most + 1):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise Refused(INVALID, f"it is nested more than {most} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Refused(INVALID, "it has an object with the same member twice")
    return members


def _constant(name: str) -> float:
    """Schedulers of diffusers do say -Infinity."""
    if name == "NaN":
        raise Refused(INVALID, "NaN is not a number")
    return float(name)
