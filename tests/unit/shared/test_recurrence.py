"""When things are due, also on the days on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from shared.recurrence import Recurrence, first_after, next_after, read_zone

BERLIN = "Europe/Berlin"


def daily(at: tuple[int, int], zone: str = BERLIN) -> Recurrence:
    return Recurrence(None, at, read_zone(zone))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def series(recurrence: Recurrence, start: datetime, count: int) -> list[datetime]:
    found, moment = [], start
    for _ in range(count):
        moment = next_after(recurrence, start, moment)
        found.append(moment)
    return found


def test_a_day_keeps_its_time_when_clocks_change() -> None:
    spring = series(daily((7, 0)), utc(2026, 3, 27, 6, 0), 3)
    assert spring == [utc(2026, 3, 28, 6), utc(2026, 3, 29, 5), utc(2026, 3, 30, 5)]
    autumn = series(daily((7, 0)), utc(2026, 10, 24, 5, 0), 2)
    assert autumn == [utc(2026, 10, 25, 6), utc(2026, 10, 26, 6)]


def test_a_time_that_is_skipped_is_made_up_for_once() -> None:
    found = series(daily((2, 30)), utc(2026, 3, 28, 1, 30), 2)
    assert found == [utc(2026, 3, 29, 1, 30), utc(2026, 3, 30, 0, 30)]  # at 03:30, then 02:30


def test_a_time_that_comes_twice_counts_once() -> None:
    found = series(daily((2, 30)), utc(2026, 10, 24, 0, 30), 2)
    assert found == [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]


def test_hours_are_hours_that_pass() -> None:
    hourly = Recurrence(1, (0, 0), read_zone(BERLIN))
    found = series(hourly, utc(2026, 10, 24, 22, 0), 25)
    assert {after - before for before, after in pairwise(found)} == {timedelta(hours=1)}


def test_what_was_missed_is_left_out() -> None:
    anchor = utc(2026, 1, 1, 0, 10)
    every = Recurrence(6, (0, 0), read_zone("UTC"))
    assert next_after(every, anchor, utc(2026, 1, 8, 1, 0)) == utc(2026, 1, 8, 6, 10)
    assert next_after(every, anchor, anchor) == utc(2026, 1, 1, 6, 10)
    assert next_after(every, anchor, utc(2025, 12, 31, 0, 0)) == anchor
    assert next_after(daily((7, 0)), anchor, utc(2026, 1, 8, 7)) == utc(2026, 1, 9, 6)


def test_the_first_time_is_today_or_tomorrow() -> None:
    assert first_after(daily((7, 0), "UTC"), utc(2026, 1, 1, 6, 59)) == utc(2026, 1, 1, 7)
    assert first_after(daily((7, 0), "UTC"), utc(2026, 1, 1, 7, 0)) == utc(2026, 1, 2, 7)
    tokyo = daily((8, 0), "Asia/Tokyo")
    assert first_after(tokyo, utc(2026, 1, 1, 22, 0)) == utc(2026, 1, 1, 23, 0)


@pytest.mark.parametrize(
    "moment", [utc(2026, month, 25, hour) for month in (3, 10) for hour in (0, 13)]
)
@pytest.mark.parametrize("zone", ["UTC", BERLIN, "America/St_Johns", "Australia/Lord_Howe"])
def test_it_is_always_later_and_never_later_than_a_long_day(moment: datetime, zone: str) -> None:
    for hour in range(24):
        for days in range(10):
            start = moment + timedelta(days=days)
            found = first_after(daily((hour, 30), zone), start)
            assert timedelta(0) < found - start <= timedelta(hours=25)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "a" * 80, "Europe"]
)
def test_names_of_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        read_zone(name)
