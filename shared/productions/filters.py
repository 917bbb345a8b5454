"""The filters of templates: few, and each with a bound on what it may make of its input.

Jinja's own are left out: several of them multiply text (``center``, ``indent``, ``replace``), read
attributes of objects (``attr``, ``map``), or take unbounded numbers (``round``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jinja2 import Undefined

MOST_CHARACTERS = 2_000_000
"""Of any text that a filter makes."""
MOST_DIGITS = 32
"""Of a text that is to be a number."""
MOST_DECIMALS = 12
_TITLE = re.compile(r"(\S)(\S*)")


class TooLarge(Exception):
    """A text, or the work for it, is over the bound. The message is for the tenant."""


@dataclass(frozen=True, slots=True)
class Filter:
    """``least`` and ``most`` count the arguments in parentheses."""

    function: Callable[..., Any]
    least: int = 0
    most: int = 0
    takes_undefined: bool = False


class Passages(list[dict[str, Any]]):
    """What was found for an item: written out with numbers, or looped over one by one."""

    def written(self) -> str:
        return "\n\n".join(f"[{each['number']}] {each['text']}" for each in self)


def text_of(value: Any) -> str:
    """How a value is written into a prompt: nothing for null, JSON for lists and objects."""
    if isinstance(value, Passages):
        return value.written()
    if isinstance(value, bool | dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=_not_json)
    return "" if value is None else str(value)  # of Undefined it raises, and names the column


def _not_json(value: Any) -> Any:
    raise TypeError("a value is not of the row")


def _trim(value: Any) -> str:
    return text_of(value).strip()


def _title(value: Any) -> str:
    return _TITLE.sub(lambda found: found[1].upper() + found[2].lower(), text_of(value))


def _replace(value: Any, old: Any, new: Any) -> str:
    text, old, new = text_of(value), text_of(old), text_of(new)
    if not old:
        raise ValueError("'replace' needs a text to look for")
    if len(text) + text.count(old) * (len(new) - len(old)) > MOST_CHARACTERS:
        raise TooLarge(f"'replace' would make more than {MOST_CHARACTERS} characters")
    return text.replace(old, new)


def _join(value: Any, separator: Any = "") -> str:
    if not isinstance(value, list | tuple):
        raise TypeError("'join' needs a list")
    parts, between = [text_of(part) for part in value], text_of(separator)
    if sum(map(len, parts)) + len(between) * len(parts) > MOST_CHARACTERS:
        raise TooLarge(f"'join' would make more than {MOST_CHARACTERS} characters")
    return between.join(parts)


def _truncate(value: Any, most: Any, end: Any = "…") -> str:
    """At most ``most`` characters, cut between words where there is a space."""
    text, ending, limit = text_of(value), text_of(end), _whole(most)
    if len(text) <= limit:
        return text
    kept = text[: max(limit - len(ending), 0)]
    before, space, _ = kept.rpartition(" ")
    return ((before if space else kept).rstrip() + ending)[: max(limit, 0)]


def _words(value: Any, most: Any) -> str:
    """The first ``most`` words, as they are separated by space."""
    return " ".join(text_of(value).split()[: max(_whole(most), 0)])


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else len(text_of(value))


def _wordcount(value: Any) -> int:
    return len(text_of(value).split())


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, str | list | tuple) and value else None


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, str | list | tuple) and value else None


def _default(value: Any, other: Any, also_empty: Any = False) -> Any:
    if isinstance(value, Undefined) or value is None:
        return other
    return other if also_empty and not value else value


def _number(value: Any) -> float:
    if isinstance(value, str) and len(value) > MOST_DIGITS:
        raise ValueError(f"a text of more than {MOST_DIGITS} characters is no number")
    found = float(value.replace(",", "") if isinstance(value, str) else value)
    if not math.isfinite(found):
        raise ValueError("the number is not finite")
    return found


def _whole(value: Any) -> int:
    return int(_number(value))


def _round(value: Any, decimals: Any = 0) -> float | int:
    places = min(max(_whole(decimals), 0), MOST_DECIMALS)
    return round(_number(value), places) if places else round(_number(value))


def _tojson(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_not_json)


FILTERS: dict[str, Filter] = {
    "upper": Filter(lambda value: text_of(value).upper()),
    "lower": Filter(lambda value: text_of(value).lower()),
    "capitalize": Filter(lambda value: text_of(value).capitalize()),
    "title": Filter(_title),
    "trim": Filter(_trim),
    "replace": Filter(_replace, 2, 2),
    "join": Filter(_join, 0, 1),
    "truncate": Filter(_truncate, 1, 2),
    "words": Filter(_words, 1, 1),
    "length": Filter(_length),
    "wordcount": Filter(_wordcount),
    "first": Filter(_first),
    "last": Filter(_last),
    "default": Filter(_default, 1, 2, takes_undefined=True),
    "int": Filter(_whole),
    "float": Filter(_number),
    "round": Filter(_round, 0, 1),
    "tojson": Filter(_tojson),
}

TESTS: dict[str, Callable[[Any], bool]] = {
    "defined": lambda value: not isinstance(value, Undefined),
    "undefined": lambda value: isinstance(value, Undefined),
    "none": lambda value: value is None,
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "list": lambda value: isinstance(value, list | tuple),
    "true": lambda value: value is True,
    "false": lambda value: value is False,
}
