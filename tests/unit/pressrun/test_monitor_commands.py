"""What ``pressrun monitors`` prints, and what ``pressrun schedules`` reads."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from pressrun.exit_codes import CommandError
from pressrun.monitor_commands import labels_table, sparkline
from pressrun.schedule_commands import _every


def window(alerted: int | None = None, **labels: int) -> dict[str, Any]:
    return {"judged": sum(labels.values()), "labels": labels, "alerted_at": alerted}


def test_a_sign_for_each_share() -> None:
    assert sparkline([0.0, 0.5, 1.0, None]) == "▁▅█·"
    assert sparkline([]) == ""


def test_labels_go_from_the_commonest_on_and_windows_from_the_oldest() -> None:
    monitor = {"label": "negative", "limit": 0.3}
    newest_first = [window(5, negative=3, positive=1), window(), window(positive=4)]
    console = Console(width=100)
    with console.capture() as captured:
        console.print(labels_table(monitor, newest_first))
    lines = [line.split() for line in captured.get().splitlines()]
    assert lines[1] == ["positive", "5", "62.5%", "█·▃"]
    assert lines[2] == ["negative", "(limit", "30%)", "3", "37.5%", "▁·▆"]
    assert lines[3] == ["alerts", "1", "!"]


@pytest.mark.parametrize(
    ("said", "meant"), [("day", "day"), ("hour", "hour"), ("6h", {"hours": 6})]
)
def test_how_often(said: str, meant: Any) -> None:
    assert _every(said) == meant


@pytest.mark.parametrize("said", ["h", "week", "-1h", "6", "٣h"])
def test_how_often_not(said: str) -> None:
    with pytest.raises(CommandError):
        _every(said)
