"""How commands tell of what did not succeed."""

from __future__ import annotations

from collections.abc import Iterator

from pressrun.api_client import Json
from pressrun.exit_codes import CommandError

SHOWN_PROBLEMS = 10


def not_succeeded(thing_id: str, ended: str, error: Json | None) -> CommandError:
    """For a thing that ended in the state ``ended``, with its ``error`` if there is one."""
    reason = f": {error['message']} ({error['code']})" if error else ""
    return CommandError(f"{thing_id} ended {ended}{reason}")


def told_problems(problems: list[Json] | None, *, shown: int = SHOWN_PROBLEMS) -> Iterator[str]:
    """The first lines or files that were refused, and how many more there are; a sentence each."""
    found = problems or []
    for problem in found[:shown]:
        place = f"line {problem['line']}: " if problem.get("line") else ""
        yield f"{place}{problem['message']} ({problem['code']})"
    if len(found) > shown:
        yield f"… and {len(found) - shown} more"
