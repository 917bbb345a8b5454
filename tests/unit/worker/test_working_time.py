"""An engine's time, shared out among the rows that it held."""

from __future__ import annotations

import pytest

from worker.engines.protocol import Row, RowResult
from worker.engines.working_time import WorkingTime


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def rows(*indexes: int) -> list[Row]:
    return [Row(index, "/v1/completions", b"{}") for index in indexes]


def result(shard: int, index: int) -> RowResult:
    return RowResult(shard, 1, index, 200, b"{}")


def work(meter: WorkingTime, clock: Clock, seconds: float) -> None:
    with meter.step():
        clock.now += seconds


def test_rows_that_share_an_engine_share_its_time_and_no_more() -> None:
    clock = Clock()
    meter = WorkingTime(clock)
    meter.take(1, 1, rows(0, 1))
    work(meter, clock, 4.0)
    meter.take(2, 1, rows(0))
    work(meter, clock, 3.0)
    clock.now += 60.0  # between steps nobody works
    first = meter.told([result(1, 0)])
    work(meter, clock, 2.0)
    rest = meter.told([result(1, 1), result(2, 0)])
    seconds = [row.compute_seconds for row in (*first, *rest)]
    assert seconds == pytest.approx([3.0, 4.0, 2.0])
    assert sum(filter(None, seconds)) == pytest.approx(9.0)


def test_rows_that_were_dropped_take_no_more_time() -> None:
    clock = Clock()
    meter = WorkingTime(clock)
    meter.take(1, 1, rows(0, 1))
    meter.take(2, 1, rows(0))
    work(meter, clock, 3.0)
    meter.forget_shard(1, 1)
    work(meter, clock, 5.0)
    assert meter.told([result(2, 0)])[0].compute_seconds == pytest.approx(6.0)


def test_a_row_that_never_ran_took_nothing() -> None:
    meter = WorkingTime(Clock())
    meter.take(1, 1, rows(0))
    assert meter.told([result(1, 0), result(9, 9)])[0].compute_seconds == 0.0
