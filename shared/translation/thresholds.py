"""From which score a category of moderation is flagged: one threshold, and exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

OFF = "off"
_APART = re.compile("[^a-z0-9]+")


def category_key(name: str) -> str:
    """Equal for names that mean the same category: ``Self_Harm`` and ``self-harm``."""
    return _APART.sub("-", name.lower()).strip("-")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores from 0 to 1. A category whose exception is None is none: it is never shown."""

    usual: float = 0.5
    exceptions: Mapping[str, float | None] = field(default_factory=dict)
    """By ``category_key``."""

    def of(self, category: str) -> float | None:
        return self.exceptions.get(category_key(category), self.usual)


USUAL = Thresholds()


def parse_thresholds(text: str) -> Thresholds:
    """``0.5``, or ``0.5,violence=0.8,harmless=off``. Raises ValueError."""
    usual, *others = [part.strip() for part in text.split(",")]
    exceptions: dict[str, float | None] = {}
    for other in others:
        name, equals, value = other.rpartition("=")
        if not equals or not category_key(name):
            raise ValueError(f"{other!r} is not of the form category=score")
        exceptions[category_key(name)] = None if value.strip() == OFF else _score(value)
    return Thresholds(_score(usual), exceptions)


def _score(text: str) -> float:
    score = float(text)
    if not 0 <= score <= 1:
        raise ValueError(f"a score lies between 0 and 1, and {text.strip()} does not")
    return score
