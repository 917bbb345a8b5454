"""Which days of usage a request asks for."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from flask import Request

from api import parsing
from shared.db.usage import GROUPS
from shared.errors import InvalidRequest

DAY_SECONDS = 86_400
DAYS = 31
MOST_DAYS = 366
"""On a page."""
LAST_SECOND = 253_402_300_799
"""Of the year 9999."""
LONGEST_RANGE_DAYS = 3_660


class Asked(NamedTuple):
    """Days from ``first`` and before ``end``, of which the page begins at ``page``."""

    first: date
    end: date
    page: date
    days: int
    groups: tuple[str, ...]

    @property
    def page_end(self) -> date:
        return min(self.end, self.page + timedelta(days=self.days))


def read_usage_request(request: Request, *, groups: tuple[str, ...]) -> Asked:
    """Raises InvalidRequest. ``groups`` are those that the caller may tell apart."""
    now = int(time.time())
    start = parsing.integer(
        request, "start_time", default=now - (DAYS - 1) * DAY_SECONDS, least=0, most=LAST_SECOND
    )
    end = parsing.integer(request, "end_time", default=now + 1, least=0, most=LAST_SECOND)
    if end <= start:
        raise InvalidRequest("'end_time' must be after 'start_time'", param="end_time")
    first, last = day_of(start), day_of(end - 1)
    if (last - first).days >= LONGEST_RANGE_DAYS:
        raise InvalidRequest(f"at most {LONGEST_RANGE_DAYS} days at once", param="start_time")
    begin = parsing.integer(request, "page", default=start, least=0, most=LAST_SECOND)
    page = day_of(begin)
    if not first <= page <= last:
        raise InvalidRequest("'page' is no page of these days", param="page")
    days = parsing.integer(request, "limit", default=DAYS, least=1, most=MOST_DAYS)
    asked = _groups(request, groups)
    return Asked(first, next_day(last), page, days, asked)


def _groups(request: Request, allowed: tuple[str, ...]) -> tuple[str, ...]:
    said = [
        name
        for given in (*request.args.getlist("group_by"), *request.args.getlist("group_by[]"))
        for name in given.split(",")
    ]
    for name in said:
        if name not in allowed:
            known = ", ".join(allowed)
            raise InvalidRequest(f"'group_by' takes {known}", param="group_by")
    return tuple(name for name in GROUPS if name in said)


def day_of(seconds: int) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def next_day(day: date) -> date:
    """The last one there is stays what it is."""
    return day if day == date.max else day + timedelta(days=1)


def seconds_of(day: date) -> int:
    """When it begins, in Unix seconds."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
