"""Prices of the catalog, in millionths of their unit: a price for a million tokens is one token's
cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MICRO = 1_000_000


def most_cost(
    price: Mapping[str, Any] | None,
    *,
    input_tokens: int = 0,
    output_tokens: int = 0,
    images: int = 0,
    media_seconds: float = 0.0,
    trained_tokens: int = 0,
) -> int:
    """What so much costs at most, in millionths; what has no price costs nothing."""
    if not price:
        return 0
    return math.ceil(
        input_tokens * _of(price, "input_per_million")
        + output_tokens * _of(price, "output_per_million")
        + MICRO * images * _of(price, "per_image")
        + MICRO * media_seconds * _of(price, "per_second")
        + trained_tokens * _of(price, "training_per_million")
    )


def _of(price: Mapping[str, Any], name: str) -> float:
    return float(price.get(name) or 0.0)
