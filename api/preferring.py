"""``Prefer`` (RFC 7240): whether the caller of a submit would rather wait for the result."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flask import Request

from api.limits import MAX_PREFER_SECONDS

_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.ASCII | re.IGNORECASE)
_RESPOND_ASYNC = re.compile(r'respond-async(\s*=\s*"")?', re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Preference:
    """What was preferred, as far as it is understood: the rest is ignored, as the RFC has it."""

    wait_seconds: int = 0
    """At most ``MAX_PREFER_SECONDS``."""
    respond_async: bool = False

    def applied(self, *, waited: bool) -> str | None:
        """The ``Preference-Applied`` of an answer; None for none."""
        if self.wait_seconds and waited:
            return f"wait={self.wait_seconds}"
        return "respond-async" if self.respond_async else None


def preference(request: Request) -> Preference:
    """Of several values for the same preference the first one counts."""
    wait: int | None = None
    respond_async = False
    for part in ",".join(request.headers.getlist("Prefer")).split(","):
        # Parameters, behind a semicolon, mean nothing here.
        said = part.partition(";")[0].strip()
        if (match := _WAIT.fullmatch(said)) and wait is None:
            wait = min(int(match[1]), MAX_PREFER_SECONDS)
        elif _RESPOND_ASYNC.fullmatch(said):
            respond_async = True
    return Preference(wait or 0, respond_async)
