"""Delays before another try: exponential, capped, with full jitter."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delay_seconds(
    tries: int, *, base: float = 1.0, cap: float = 60.0, rng: random.Random | None = None
) -> float:
    """Seconds to wait after ``tries`` failures (1 or more): between half and all of the step."""
    step = min(cap, base * 2.0 ** min(tries - 1, 32))
    roll = (rng or random).random()
    return step * (0.5 + 0.5 * roll)


def delays(*, base: float = 1.0, cap: float = 60.0) -> Iterator[float]:
    """An endless series of growing delays."""
    tries = 0
    while True:
        tries += 1
        yield delay_seconds(tries, base=base, cap=cap)
