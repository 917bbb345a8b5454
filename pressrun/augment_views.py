"""What ``pressrun augment`` tells of its end."""

from __future__ import annotations

from collections.abc import Iterator

from pressrun.api_client import Json

SHOWN_ERRORS = 10


def told(production: Json) -> Iterator[str]:
    """Bad examples, and labels with fewer rows than were asked for, a sentence each."""
    lines = (production["error"] or {}).get("lines") or []
    for line in lines[:SHOWN_ERRORS]:
        place = f"line {line['line']}: " if line.get("line") else ""
        yield f"{place}{line['message']} ({line['code']})"
    if len(lines) > SHOWN_ERRORS:
        yield f"… and {len(lines) - SHOWN_ERRORS} more"
    summary = production["summary"] or {}
    for label, count in (summary.get("labels") or {}).items():
        if count["made"] < count["asked"]:
            short = count["asked"] - count["made"]
            yield f"'{label}' is {short} short: {count['made']} of {count['asked']} rows"
