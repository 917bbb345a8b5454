"""When a stream of events speaks, waits and ends; with a clock that is not looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.event_stream import DONE, HEARTBEAT, RETRY, Look, Pace, _lines
from shared.db.events import EventRow

LONG = Pace(heartbeat=1_000.0, longest=1_000.0)


def told(event: EventRow) -> dict[str, Any]:
    return {"id": f"e-{event.id}"}


def line(number: int) -> str:
    return f'id: e-{number}\ndata: {{"id":"e-{number}"}}\n\n'


def looked(
    *numbers: int,
    ended: bool = False,
    complete: bool = True,
    version: int = 1,
    state: dict[str, Any] | None = None,
) -> Look:
    rows = [EventRow(number, "x.y", {}, 0.0) for number in numbers]
    return Look(ended, rows, complete, version, state)


Asked = list[tuple[int, int]]


def answers(*looks: Look) -> tuple[Callable[[int, int], Look], Asked]:
    asked: Asked = []

    def look(after: int, version: int) -> Look:
        asked.append((after, version))
        return looks[len(asked) - 1]

    return look, asked


def news(after: int, version: int, seconds: float) -> bool:
    return True


def stream(*looks: Look, after: int = 0, pace: Pace = LONG) -> tuple[list[str], Asked]:
    look, asked = answers(*looks)
    return list(_lines(look, news, told, after=after, pace=pace)), asked


def test_everything_is_told_once_and_the_end_after_it() -> None:
    said, asked = stream(looked(3, 5), looked(), looked(6, version=2, ended=True), after=2)
    assert said == [RETRY, line(3), line(5), line(6), DONE]
    assert asked == [(2, 0), (5, 1), (5, 1)]


def test_the_job_itself_is_told_without_an_id() -> None:
    said, _ = stream(
        looked(state={"state": "queued"}),
        looked(version=2, state={"state": "running"}),
        looked(4, version=3, ended=True),
    )
    assert said == [
        RETRY,
        'event: job\ndata: {"state":"queued"}\n\n',
        'event: job\ndata: {"state":"running"}\n\n',
        line(4),
        DONE,
    ]


def test_more_pages_are_read_before_anybody_waits() -> None:
    look, asked = answers(looked(1, 2, complete=False), looked(3, ended=True))

    def never(after: int, version: int, seconds: float) -> bool:
        raise AssertionError("there was more to read")

    assert list(_lines(look, never, told, after=0, pace=LONG)) == [
        RETRY, line(1), line(2), line(3), DONE,
    ]  # fmt: skip
    assert asked == [(0, 0), (2, 1)]


def test_a_gap_is_waited_for_even_at_the_end() -> None:
    said, asked = stream(looked(ended=True, complete=False), looked(7, 8, ended=True))
    assert said == [RETRY, line(7), line(8), DONE]
    assert asked == [(0, 0), (0, 1)]


def test_silence_is_filled() -> None:
    said, _ = stream(
        looked(), looked(), looked(ended=True), pace=Pace(heartbeat=0.0, longest=1_000.0)
    )
    assert said == [RETRY, HEARTBEAT, HEARTBEAT, DONE]


def test_a_wait_lasts_until_the_next_heartbeat_or_the_end() -> None:
    waits: list[float] = []

    def wait(after: int, version: int, seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) < 2

    for pace in (Pace(heartbeat=15.0, longest=600.0), Pace(heartbeat=600.0, longest=15.0)):
        look, _ = answers(looked(), looked())
        waits.clear()
        list(_lines(look, wait, told, after=0, pace=pace))
        assert all(14.0 < seconds <= 15.0 for seconds in waits)


def test_it_ends_when_the_process_stops() -> None:
    look, _ = answers(looked(1))
    assert list(_lines(look, lambda *_: False, told, after=0, pace=LONG)) == [RETRY, line(1)]


def test_a_stream_lasts_so_long_and_no_longer() -> None:
    said, asked = stream(pace=Pace(heartbeat=0.0, longest=0.0))
    assert said == [RETRY]
    assert asked == []


def test_an_outage_ends_it() -> None:
    def look(after: int, version: int) -> Look:
        raise OperationalError("x", {}, Exception("away"))

    assert list(_lines(look, news, told, after=0, pace=LONG)) == [RETRY]


def test_a_busy_process_is_waited_for() -> None:
    found = iter([PoolTimeout(), looked(3, ended=True)])

    def look(after: int, version: int) -> Look:
        answer = next(found)
        if isinstance(answer, PoolTimeout):
            raise answer
        return answer

    assert list(_lines(look, news, told, after=0, pace=LONG)) == [RETRY, line(3), DONE]
