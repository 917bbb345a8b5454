"""What tenants may have: limits, what work may consume at most, and whether it still fits. Pure;
``shared.lifecycle.quotas`` asks it in the transaction that accepts the work."""

from __future__ import annotations

from shared.quotas.limits import Limits, Standing, judge
from shared.quotas.prices import MICRO, most_cost
from shared.quotas.reservations import (
    NOTHING,
    OPEN_ENDED,
    Reservation,
    of_body,
    of_spec,
)

__all__ = [
    "MICRO",
    "NOTHING",
    "OPEN_ENDED",
    "Limits",
    "Reservation",
    "Standing",
    "judge",
    "most_cost",
    "of_body",
    "of_spec",
]
