"""What a gate decides, by the numbers and by who holds the alias."""

from __future__ import annotations

import math
from typing import Any

import pytest

from shared.lifecycle.alias_gates import Gate, judge

OLD, NEW, OTHER = "old", "new", "other"


def a_gate(**changed: Any) -> Gate:
    values: dict[str, Any] = {
        "alias_id": "alias_1",
        "alias": "a@b",
        "candidate": NEW,
        "holder": OLD,
        "compared": True,
        "metric": "loss",
        "min_improvement": 0.0,
    }
    return Gate(**(values | changed))


@pytest.mark.parametrize(
    ("new", "old", "goes_up", "least", "outcome"),
    [
        (0.5, 0.6, False, 0.0, "moved"),
        (0.6, 0.5, False, 0.0, "kept"),
        (0.5, 0.5, False, 0.0, "kept"),
        (0.6, 0.5, True, 0.0, "moved"),
        (0.5, 0.6, True, 0.0, "kept"),
        (0.75, 0.5, True, 0.25, "kept"),  # by as much, not by more
        (0.875, 0.5, True, 0.25, "moved"),
        (0.5, 0.75, True, -0.5, "moved"),  # worse, by less than is allowed
        (0.5, 1.0, True, -0.5, "kept"),
        (-1.0, -2.0, True, 0.5, "moved"),
    ],
)
def test_better_by_more_than_was_asked_for(
    new: float, old: float, goes_up: bool, least: float, outcome: str
) -> None:
    verdict = judge(a_gate(min_improvement=least), OLD, {NEW: new, OLD: old}, goes_up=goes_up)
    assert verdict.outcome == outcome
    assert verdict.reason == ("better" if outcome == "moved" else "not_better")


@pytest.mark.parametrize("holder", [OTHER, None])
def test_another_holder_than_was_measured_supersedes_it(holder: str | None) -> None:
    verdict = judge(a_gate(), holder, {NEW: 0.0, OLD: 1.0}, goes_up=False)
    assert verdict == ("superseded", "holder_changed")


def test_an_alias_that_was_free_and_is_held_now_supersedes_it() -> None:
    assert judge(a_gate(holder=None), OTHER, {NEW: 1.0}, goes_up=True).outcome == "superseded"


def test_without_a_holder_the_candidate_only_has_to_be_measured() -> None:
    free = a_gate(holder=None, compared=False, min_improvement=5.0)
    assert free.models == [NEW]
    assert judge(free, None, {NEW: 9.0}, goes_up=False).outcome == "moved"


def test_a_holder_that_is_not_there_any_more_is_no_rival() -> None:
    withdrawn = a_gate(compared=False)
    assert withdrawn.models == [NEW]
    assert judge(withdrawn, OLD, {NEW: 9.0}, goes_up=False).outcome == "moved"


@pytest.mark.parametrize(
    "values",
    [{}, {NEW: math.nan, OLD: 1.0}, {OLD: 1.0}, {NEW: 1.0}, {NEW: 1.0, OLD: math.inf}],
)
def test_without_both_numbers_it_stays_shut(values: dict[str, float]) -> None:
    assert judge(a_gate(), OLD, values, goes_up=False) == ("kept", "not_measured")


def test_a_gate_survives_the_way_through_the_job() -> None:
    gate = a_gate(min_improvement=0.25)
    assert gate.models == [NEW, OLD]
    assert Gate.of({"gate": gate.as_detail() | {"outcome": "moved"}}) == gate
