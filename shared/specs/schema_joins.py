"""What multiplies in a schema: conditions that all have to hold for one value. Pure.

An engine makes one automaton of the patterns that a text has to match together, and one of the
numbers that a number has to be a multiple of. Its size is the product of theirs, and whoever
compiles it cannot be stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

MAX_JOINS = 8
"""Places where conditions meet, in a schema with more patterns than that."""
MAX_MULTIPLE = 10_000
"""What ``multipleOf`` may be, without its decimal point; of all that may meet, their least common
multiple."""
MOST_MULTIPLES = 100_000
"""The sum of them all: each has an automaton with as many states."""
MOST_DECIMALS = 9

_COSTLY = ("pattern", "format")
_APPLIED = ("allOf", "anyOf", "oneOf", "$ref")
_CONDITIONS = frozenset(
    {"type", "enum", "const", "pattern", "format", "minLength", "maxLength", "multipleOf",
     "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)  # fmt: skip


class Joins:
    """Counts them, one subschema after the other; each was checked."""

    def __init__(self) -> None:
        self._joins = 0
        self._patterns = 0
        self._multiples: set[Decimal] = set()
        self._states = 0

    def add(self, schema: dict[str, Any]) -> None:
        parts = len(schema.get("allOf", ())) + sum(name in schema for name in _APPLIED[1:])
        own = not _CONDITIONS.isdisjoint(schema)
        self._joins += max(0, parts + own - 1)
        self._patterns += sum(name in schema for name in _COSTLY)
        if "multipleOf" in schema:
            multiple = Decimal(repr(schema["multipleOf"])).normalize()
            self._multiples.add(multiple)
            self._states += _common([multiple])

    def problem(self) -> str | None:
        """What is too much of them, if anything is."""
        if min(self._joins, self._patterns) > MAX_JOINS:
            return f"more than {MAX_JOINS} patterns or formats may have to hold together"
        together = [self._multiples] if self._joins else [{one} for one in self._multiples]
        if any(_common(numbers) > MAX_MULTIPLE for numbers in together):
            return (
                f"'multipleOf' is over {MAX_MULTIPLE}, alone or several as one, without the point"
            )
        if self._states > MOST_MULTIPLES:
            return f"all 'multipleOf' together are over {MOST_MULTIPLES}, without their points"
        return None


def _common(numbers: Iterable[Decimal]) -> int:
    """The least common multiple, in units of the last decimal that any of them has."""
    numbers = list(numbers)
    least = min([0, *(int(number.as_tuple().exponent) for number in numbers)])
    if least < -MOST_DECIMALS:
        return MAX_MULTIPLE + 1
    return math.lcm(*(int(number.scaleb(-least)) for number in numbers))
