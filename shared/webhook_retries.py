"""When a webhook is tried again, and when its receiver is left alone for a while. Pure."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

PAUSES_SECONDS = (5.0, 300.0, 1_800.0, 7_200.0, 28_800.0, 86_400.0)
"""After the first failure, the second, and so on: seven attempts over a day and a half."""
MAX_ATTEMPTS = len(PAUSES_SECONDS) + 1
JITTER = 0.2
MAX_RETRY_AFTER_SECONDS = 6 * 3_600.0
"""A receiver may ask for more; it is not believed."""

FAILURES_TO_OPEN = 5
"""In a row, of any deliveries to one receiver: from there on it gets one probe at a time."""
FIRST_OPEN_SECONDS, LONGEST_OPEN_SECONDS = 30.0, 600.0


def pause_seconds(
    attempts: int, retry_after: float | None, *, rng: random.Random | None = None
) -> float | None:
    """How long to wait after the ``attempts``-th failed attempt; None: give up.

    Up to a fifth is added at random, so that what failed together does not come back together. A
    receiver may ask for a longer pause, never for a shorter one.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    pause = PAUSES_SECONDS[attempts - 1] * (1 + JITTER * (rng or random).random())
    return max(pause, min(retry_after or 0.0, MAX_RETRY_AFTER_SECONDS))


def open_seconds(failures: int) -> float:
    """How long a receiver is left alone after so many failures in a row; 0: not at all."""
    if failures < FAILURES_TO_OPEN:
        return 0.0
    step = min(failures - FAILURES_TO_OPEN, 16)
    return min(LONGEST_OPEN_SECONDS, FIRST_OPEN_SECONDS * 2.0**step)


def read_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, whichever of its forms it has; None when it
    is none."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
