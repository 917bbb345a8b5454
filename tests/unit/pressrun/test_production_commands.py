"""How ``pressrun produce`` tells how far a production is."""

from __future__ import annotations

from typing import Any

from pressrun.production_commands import _snapshot
from pressrun.watching import plain_line


def production(status: str, **changed: Any) -> dict[str, Any]:
    found = {"status": status, "kept": 3, "lines": 12, "round": 1, "phase": 0, "phases": 1}
    return {**found, "batch": None, **changed}


def test_answers_are_counted_while_a_batch_is_asked() -> None:
    asked = production("running", batch={"id": "batch_1", "done": 5, "rows": 9}, phases=2)
    told = plain_line(_snapshot(asked), 4)
    assert told == "running: 5/9 answers, round 2, phase 1 of 2, 3 of 12 lines kept, 4 s"


def test_lines_are_counted_otherwise() -> None:
    assert plain_line(_snapshot(production("running")), 4) == "running: 3/12 lines, round 2, 4 s"
    assert plain_line(_snapshot(production("succeeded")), 9) == "succeeded: 3/12 lines, 9 s"
