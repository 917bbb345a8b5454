"""Which language a text looks like. The model is loaded at the first text, and takes 75 MB."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

MOST_CHARACTERS = 5_000
"""Of a text that are looked at."""


def language_of(text: str) -> str:
    """An ISO 639-1 code; some language is named for any text."""
    code: str = _identifier().classify(text[:MOST_CHARACTERS])[0]
    return code


@lru_cache(maxsize=1)
def _identifier() -> Any:
    import py3langid

    return py3langid
