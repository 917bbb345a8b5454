"""When something that comes again is due next. Pure: moments come in, moments go out.

Hours are hours that pass. Days are days of a time zone, so what is due at 07:00 stays due at 07:00
when clocks are changed: a time that is skipped is made up for as much later as clocks were moved,
one that comes twice counts the first time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MOST_HOURS = 24 * 31
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How often, and when of a day."""

    hours: int | None
    """Between two runs; None: a day of the time zone."""
    at: tuple[int, int]
    """Hour and minute, in the time zone: of each day; of hours, of the first."""
    zone: ZoneInfo


def read_zone(name: str) -> ZoneInfo:
    """Raises ValueError for a name that is no time zone's."""
    # Here: every start of the API would pay for it.
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if len(name) <= 64 and _ZONE.fullmatch(name):  # noqa: PLR2004 - no zone has so long a name
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, OSError):
            pass
    raise ValueError("it is no name of a time zone, such as Europe/Berlin")


def first_after(recurrence: Recurrence, moment: datetime) -> datetime:
    """The first time of day ``at`` that is later than ``moment``, in UTC."""
    local = moment.astimezone(recurrence.zone)
    hour, minute = recurrence.at
    for days in range(3):
        day = local.date() + timedelta(days=days)
        naive = datetime(day.year, day.month, day.day, hour, minute, tzinfo=recurrence.zone)
        found = naive.astimezone(UTC)
        if found > moment:
            return found
    raise AssertionError("no day is that long")


def next_after(recurrence: Recurrence, anchor: datetime, moment: datetime) -> datetime:
    """The first time it is due after ``moment``, in UTC; ``anchor`` was due once. Whatever was due
    in between is left out."""
    if recurrence.hours is None:
        return first_after(recurrence, moment)
    step = timedelta(hours=recurrence.hours)
    passed = max(0, (moment - anchor) // step + 1)
    return (anchor + passed * step).astimezone(UTC)
