"""What callers of a submit prefer, and until when they want it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from api.deadlines import deadline_seconds
from api.preferring import Preference, preference
from shared.errors import InvalidRequest


def a_request(*headers: tuple[str, str]) -> Request:
    return Request(EnvironBuilder(headers=list(headers)).get_environ())


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        ("wait=10", Preference(10)),
        ("WAIT = 10", Preference(10)),
        ('wait="10"; x=y', Preference(10)),
        ("wait=100000", Preference(60)),
        ("respond-async", Preference(0, True)),
        ("respond-async, wait=5, wait=9", Preference(5, True)),
        ("handling=lenient, wait=5", Preference(5)),
        ("wait=0", Preference()),
        ("wait=-1", Preference()),
        ("wait=soon", Preference()),
        ("wait", Preference()),
        ("", Preference()),
        (",;,=" * 50, Preference()),
    ],
)
def test_what_is_not_understood_is_ignored(prefer: str, expected: Preference) -> None:
    assert preference(a_request(("Prefer", prefer))) == expected


def test_several_headers_are_one_list() -> None:
    request = a_request(("Prefer", "respond-async"), ("Prefer", "wait=3"))
    assert preference(request) == Preference(3, True)


@pytest.mark.parametrize(
    ("preferred", "waited", "applied"),
    [
        (Preference(5, True), True, "wait=5"),
        (Preference(5, True), False, "respond-async"),
        (Preference(5), False, None),
        (Preference(), False, None),
    ],
)
def test_what_was_done_is_told(preferred: Preference, waited: bool, applied: str | None) -> None:
    assert preferred.applied(waited=waited) == applied


@pytest.mark.parametrize(("header", "seconds"), [("90s", 90), ("5m", 300), (" 2h ", 7_200)])
def test_cancel_after(header: str, seconds: float) -> None:
    assert deadline_seconds(a_request(("Cancel-After", header)), None, None) == seconds


def test_a_moment_by_either_name() -> None:
    in_an_hour = int(time.time()) + 3_600
    for given in (float(in_an_hour), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(in_an_hour))):
        seconds = deadline_seconds(a_request(), None, given)
        assert seconds is not None
        assert 3_500 < seconds <= 3_600
    assert deadline_seconds(a_request(), 9.0, None) == 9.0
    assert deadline_seconds(a_request(), None, None) is None


@pytest.mark.parametrize(
    ("header", "body", "param"),
    [
        ("5", {}, "Cancel-After"),
        ("0m", {}, "Cancel-After"),
        ("5d", {}, "Cancel-After"),
        ("99999999h", {}, "Cancel-After"),
        ("5m", {"expires_in_seconds": 9.0}, "expires_in_seconds"),
        (None, {"expires_in_seconds": 9.0, "expires_at": 9e9}, "expires_at"),
        (None, {"expires_at": 5.0}, "expires_at"),
        (None, {"expires_at": 9e12}, "expires_at"),
        (None, {"expires_at": "tomorrow"}, "expires_at"),
        (None, {"expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        (None, {"expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
    ],
)
def test_a_deadline_that_is_none_is_refused(
    header: str | None, body: dict[str, Any], param: str
) -> None:
    request = a_request(*([("Cancel-After", header)] if header else []))
    with pytest.raises(InvalidRequest) as refused:
        deadline_seconds(request, body.get("expires_in_seconds"), body.get("expires_at"))
    assert refused.value.param == param
