"""When a job is to be given up: a ``Cancel-After`` header, or one of two members of its body."""

from __future__ import annotations

import re
import time
from datetime import datetime

from flask import Request

from api.limits import MAX_DEADLINE_SECONDS
from shared.errors import InvalidRequest

CANCEL_AFTER = "Cancel-After"

_AFTER = re.compile(r"([1-9][0-9]{0,7})([smh])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3_600}


def deadline_seconds(
    request: Request, expires_in_seconds: float | None, expires_at: float | str | None
) -> float | None:
    """How long from now; None for ever. Raises InvalidRequest that names what is wrong."""
    header = request.headers.get(CANCEL_AFTER)
    said = {
        CANCEL_AFTER: header,
        "expires_in_seconds": expires_in_seconds,
        "expires_at": expires_at,
    }
    named = [name for name, value in said.items() if value is not None]
    if len(named) > 1:
        raise InvalidRequest(f"give one deadline, not {' and '.join(named)}", param=named[-1])
    if header is not None:
        return _within(_after(header), CANCEL_AFTER)
    if expires_at is not None:
        return _within(_moment(expires_at) - time.time(), "expires_at")
    return expires_in_seconds


def _after(text: str) -> float:
    match = _AFTER.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(
            "'Cancel-After' must be whole seconds, minutes or hours: 90s, 5m, 2h",
            param=CANCEL_AFTER,
        )
    return int(match[1]) * _UNITS[match[2]]


def _moment(value: float | str) -> float:
    """Unix seconds of a moment given as that, or by RFC 3339."""
    if not isinstance(value, str):
        return value
    wrong = InvalidRequest(
        "'expires_at' must be Unix seconds, or a time such as 2030-01-31T12:00:00Z",
        param="expires_at",
    )
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise wrong from None
    if moment.tzinfo is None:
        raise wrong
    return moment.timestamp()


def _within(seconds: float, param: str) -> float:
    if not 0 < seconds <= MAX_DEADLINE_SECONDS:
        raise InvalidRequest(
            f"'{param}' must lie ahead, by {MAX_DEADLINE_SECONDS // 86_400} days at most",
            param=param,
        )
    return seconds
