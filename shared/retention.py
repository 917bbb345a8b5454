"""What is kept for how many days: the kinds there are, and how they are written down. Pure."""

from __future__ import annotations

from collections.abc import Mapping

KINDS = ("input_files", "outputs", "jobs", "events", "usage", "archive")
"""Files that tenants bring; artifacts and files that jobs made; finished jobs; their events, and
the deliveries of webhooks; usage; the lines that the archive has of jobs."""
MOST_DAYS = 36_500
NOT_BEFORE_JOBS = ("usage", "archive")
"""Kept as long as jobs at least: they are what is left of these."""

Days = Mapping[str, int | None]
"""By kind; None: for ever."""


class BadRetention(ValueError):
    """Days that can't be; ``kind`` is the one at fault."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def merged(defaults: Days, own: Days) -> dict[str, int | None]:
    """``own`` before ``defaults``; what neither has is kept for ever."""
    return {kind: own[kind] if kind in own else defaults.get(kind) for kind in KINDS}


def check_days(days: Days) -> None:
    """Raises BadRetention where something that outlives jobs would go before them."""
    jobs = days.get("jobs")
    for kind in NOT_BEFORE_JOBS:
        kept = days.get(kind)
        if kept is not None and (jobs is None or kept < jobs):
            raise BadRetention(kind, f"'{kind}' must be kept as long as 'jobs' at least")


def parse_retention(listed: str) -> dict[str, int | None]:
    """``jobs=90,outputs=30`` as days by kind. Raises BadRetention."""
    days: dict[str, int | None] = {}
    for part in filter(None, (part.strip() for part in listed.split(","))):
        kind, _, number = part.partition("=")
        if kind not in KINDS or kind in days:
            raise BadRetention(kind, f"each of {', '.join(KINDS)} may be listed once, not {kind!r}")
        if not (number.isascii() and number.isdigit() and 1 <= int(number) <= MOST_DAYS):
            raise BadRetention(kind, f"{kind}: not a number of days from 1 to {MOST_DAYS}")
        days[kind] = int(number)
    check_days(days)
    return days
