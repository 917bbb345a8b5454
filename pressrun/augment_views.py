"""What ``pressrun augment`` tells of its end."""

from __future__ import annotations

from collections.abc import Iterator

from pressrun.api_client import Json
from pressrun.endings import told_problems
from pressrun.production_views import problems


def told(production: Json) -> Iterator[str]:
    """Bad examples, and labels with fewer rows than were asked for, a sentence each."""
    yield from told_problems(problems(production))
    summary = production["summary"] or {}
    for label, count in (summary.get("labels") or {}).items():
        if count["made"] < count["asked"]:
            short = count["asked"] - count["made"]
            yield f"'{label}' is {short} short: {count['made']} of {count['asked']} rows"
