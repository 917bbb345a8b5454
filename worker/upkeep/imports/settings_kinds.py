"""What a setting's value may be: plain numbers, flags and words, or few things made of those."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]
Table = dict[str, Check]

MOST_ITEMS = 4_096
MOST_LABELS = 1_000
MOST_LABEL_CHARACTERS = 256
MOST_TEXT_CHARACTERS = 1_024
MOST_NUMBER = 2**40
DTYPES = frozenset({"float32", "float16", "bfloat16", "float64"})
_WORD = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+| -]{0,127}\Z", re.ASCII)
"""No slash and no colon: it names neither a path nor something on a hub."""


def integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST_NUMBER


def number(value: Any) -> bool:
    """Infinity is one: schedulers bound by it."""
    if isinstance(value, float):
        return not math.isnan(value)
    return integer(value)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.match(value) is not None


def dtype(value: Any) -> bool:
    return isinstance(value, str) and value in DTYPES


def text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT_CHARACTERS


def scalar(value: Any) -> bool:
    return value is None or flag(value) or number(value) or word(value)


def list_of(check: Check) -> Check:
    return lambda value: (
        isinstance(value, list) and len(value) <= MOST_ITEMS and all(map(check, value))
    )


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def object_of(check: Check, name: Check, most: int = MOST_ITEMS) -> Check:
    """An object whose members' names pass ``name``, and their values ``check``."""
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= most
        and all(name(key) and check(inner) for key, inner in value.items())
    )


def digits(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit()


def label(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_LABEL_CHARACTERS


_flat_object = object_of(either(scalar, list_of(scalar)), word)
plain_object = object_of(either(scalar, list_of(scalar), _flat_object), word)
"""An object of plain values, lists of them, and such objects once more: rotary embeddings are
described by one, or by one for each type of layers."""
numbered_labels = object_of(label, digits, MOST_LABELS)
"""``{"0": "positive"}``"""
label_numbers = object_of(integer, label, MOST_LABELS)
"""``{"positive": 0}``"""


def table(**names: str) -> Table:
    """Names in a text, parted by blanks, under the kind of their values."""
    checks: dict[str, Check] = {
        "integers": integer,
        "numbers": number,
        "flags": flag,
        "words": word,
        "texts": text,
        "dtypes": dtype,
        "integer_lists": either(integer, list_of(integer)),
        "number_lists": either(number, list_of(number)),
        "nested_integers": either(integer, list_of(either(integer, list_of(integer)))),
        "flag_lists": either(flag, list_of(flag)),
        "word_lists": either(word, list_of(word)),
        "scalars": scalar,
        "mixed_lists": list_of(either(scalar, list_of(either(scalar, list_of(scalar))))),
        "objects": plain_object,
    }
    return {name: checks[kind] for kind, listed in names.items() for name in listed.split()}
