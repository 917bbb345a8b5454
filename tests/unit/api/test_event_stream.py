"""When a stream of events speaks, waits and ends; with a clock that is not looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import OperationalError

from api.event_stream import DONE, HEARTBEAT, RETRY, Pace, Seen, _lines
from shared.db.events import EventRow

AT_ONCE = Pace(poll=0.0, heartbeat=1_000.0, longest=1_000.0)


def told(event: EventRow) -> dict[str, Any]:
    return {"id": f"e-{event.id}"}


def line(number: int) -> str:
    return f'id: e-{number}\ndata: {{"id":"e-{number}"}}\n\n'


def answers(*looks: Seen) -> tuple[Callable[[int], Seen], list[int]]:
    asked: list[int] = []

    def look(after: int) -> Seen:
        asked.append(after)
        return looks[len(asked) - 1]

    return look, asked


def events(*numbers: int) -> list[EventRow]:
    return [EventRow(number, "x.y", {}, 0.0) for number in numbers]


def nothing(seconds: float) -> None:
    pass


def test_everything_is_told_once_and_the_end_after_it() -> None:
    look, asked = answers((False, events(3, 5)), (False, []), (True, events(6)), (True, []))
    assert list(_lines(look, nothing, told, after=2, pace=AT_ONCE)) == [
        RETRY,
        line(3),
        line(5),
        line(6),
        DONE,
    ]
    assert asked == [2, 5, 5, 6]


def test_silence_is_filled() -> None:
    look, _ = answers((False, []), (False, []), (True, []))
    pace = Pace(poll=0.0, heartbeat=0.0, longest=1_000.0)
    said = list(_lines(look, nothing, told, after=0, pace=pace))
    assert said == [RETRY, HEARTBEAT, HEARTBEAT, DONE]


def test_waking_early_without_an_end_means_that_the_process_stops() -> None:
    look, _ = answers((False, []), (False, events(1)))
    pace = Pace(poll=1_000.0, heartbeat=1_000.0, longest=1_000.0)
    assert list(_lines(look, nothing, told, after=0, pace=pace)) == [RETRY, line(1)]


def test_waking_early_at_the_end_tells_the_rest() -> None:
    look, _ = answers((False, []), (True, events(1)), (True, []))
    pace = Pace(poll=1_000.0, heartbeat=1_000.0, longest=1_000.0)
    assert list(_lines(look, nothing, told, after=0, pace=pace)) == [RETRY, line(1), DONE]


def test_a_stream_lasts_so_long_and_no_longer() -> None:
    look, asked = answers()
    pace = Pace(poll=0.0, heartbeat=0.0, longest=0.0)
    assert list(_lines(look, nothing, told, after=0, pace=pace)) == [RETRY]
    assert asked == []


def test_an_outage_ends_it() -> None:
    def look(after: int) -> Seen:
        raise OperationalError("x", {}, Exception("away"))

    assert list(_lines(look, nothing, told, after=0, pace=AT_ONCE)) == [RETRY]
