from __future__ import annotations

import pytest

from pressrun.terminal import Terminal
from pressrun.watching import PlainDisplay, Snapshot, plain_line, snapshot_of


@pytest.mark.parametrize(
    ("snapshot", "elapsed", "line"),
    [
        (Snapshot("validating", 0, 0, 0), 0.2, "validating: 0/0 rows, 0 failed, 0 s"),
        (
            Snapshot("in_progress", 5, 1, 24),
            3.0,
            "in_progress: 6/24 rows, 1 failed, 3 s, ETA 9 s",
        ),
        (Snapshot("completed", 24, 0, 24), 9.0, "completed: 24/24 rows, 0 failed, 9 s"),
    ],
)
def test_a_line_tells_how_far_it_is(snapshot: Snapshot, elapsed: float, line: str) -> None:
    assert plain_line(snapshot, elapsed) == line


def test_counts_may_be_absent_while_the_input_is_read() -> None:
    assert snapshot_of({"status": "validating"}) == Snapshot("validating", 0, 0, 0)
    counts = {"total": None, "completed": 1, "failed": None}
    assert snapshot_of({"status": "x", "request_counts": counts}) == Snapshot("x", 1, 0, 0)


def test_without_a_terminal_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with PlainDisplay(Terminal(), clock=lambda: now[0]) as display:
        for second in range(11):
            now[0] = float(second)
            display.show(Snapshot("in_progress", second, 0, 100))
        display.show(Snapshot("completed", 100, 0, 100))
        display.show(Snapshot("completed", 100, 0, 100))
    shown = [line.split(" rows")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == [
        "in_progress: 0/100",
        "in_progress: 5/100",
        "in_progress: 10/100",
        "completed: 100/100",
    ]


def test_a_long_step_shows_signs_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with PlainDisplay(Terminal(), clock=lambda: now[0]) as display:
        for second in range(65):
            now[0] = float(second)
            display.show(Snapshot("running", 3, 0, 21, "steps"))
    shown = [line.split(", ")[-2] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["0 s", "30 s", "60 s"]
