"""What a run says about itself: verdicts are computed, tables come from results alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.figures import FIGURES
from bench.report import (
    BEGIN_MARK,
    END_MARK,
    Measurement,
    ReportError,
    Result,
    Target,
    interleave,
    merge,
    put_in_page,
    read_results,
    rounded,
    sides_of,
    terminal_table,
    write_results,
)


def result(name: str, value: float = 1.0, must_reach: str = ">= 0.5", **detail: object) -> Result:
    return Result.of(name, must_reach, Measurement(value, detail))


@pytest.mark.parametrize(
    ("must_reach", "value", "reached"),
    [
        (">= 0.70", 0.70, True),
        (">= 0.70", 0.6999999, False),
        (">= 10", 11, True),
        ("<= 1.3", 1.3, True),
        ("<= 1.3", 1.3000001, False),
        ("<= 150", 90.0, True),
        (">= 0.70", math.nan, False),
        ("<= 1.3", math.nan, False),
    ],
)
def test_reached_follows_from_the_value(must_reach: str, value: float, reached: bool) -> None:
    assert result("figure", value, must_reach).reached is reached


@pytest.mark.parametrize("text", ["> 1", "= 1", ">=1", ">= inf", "<= nan", ">= fast", ""])
def test_a_target_that_could_not_be_missed_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - float's own message for some of them
        Target.parse(text)


def test_the_verdict_is_of_the_value_before_rounding() -> None:
    close = result("figure", 0.699_99, ">= 0.70")
    assert (close.value, close.reached) == (0.7, False)


def test_every_figure_has_a_target_and_a_name_of_its_own() -> None:
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
    for figure in FIGURES:
        assert Target.parse(figure.must_reach).bound > 0


def test_every_figure_is_explained_in_the_page() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md"
    explained, _, _ = page.read_text().partition(BEGIN_MARK)
    assert [figure.name for figure in FIGURES if f"`{figure.name}`" not in explained] == []


def test_sides_take_turns() -> None:
    taken: list[str] = []

    def take(name: str) -> Callable[[], float]:
        def measure() -> float:
            taken.append(name)
            return float(len(taken))

        return measure

    samples = interleave(3, {"a": take("a"), "b": take("b")})
    assert taken == ["a", "b"] * 3
    assert samples == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_results_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert read_results(path) == []
    written = [result("one", 2 / 3, sides={"plant": 10.0, "celery": 15.0}), result("two", 0.1)]
    write_results(path, written)
    assert read_results(path) == written
    [first, second] = json.loads(path.read_text())
    assert set(first) == {"name", "value", "must_reach", "reached", "detail"}
    assert (first["value"], first["reached"], second["reached"]) == (0.6667, True, False)


@pytest.mark.parametrize("text", ["{", '[{"name": "x"}]', '[{"unknown": 1}]', "[1]"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ReportError, match=r"results\.json"):
        read_results(path)


def test_a_new_result_takes_the_place_of_the_old() -> None:
    earlier = [result("one", 1.0), result("two", 2.0), result("gone", 3.0)]
    merged = merge(earlier, [result("two", 4.0)], ["two", "one"])
    assert [(item.name, item.value) for item in merged] == [("two", 4.0), ("one", 1.0)]


def test_rounding_keeps_everything_but_digits() -> None:
    value = {"a": [0.123456, 123456.7], 2: ("text", None, 7, True)}
    assert rounded(value) == {"a": [0.1235, 123500.0], "2": ["text", None, 7, True]}


def test_the_page_gets_the_table_between_its_marks() -> None:
    sides = {"plant": 10.0, "celery": 50.0}
    run = {"commit": "abc1234", "measured_at": "2026-11-22T18:00Z"}
    missed = result("slow", 0.2, ">= 0.5", unit="jobs/s", sides=sides, machine=run)
    page = f"before\n\n{BEGIN_MARK}\nold\n{END_MARK}\n\nafter\n"
    made = put_in_page(page, [missed], machine="Measured somewhere.")
    assert made.startswith(f"before\n\n{BEGIN_MARK}\n")
    assert made.endswith(f"{END_MARK}\n\nafter\n")
    row = "| `slow` | 0.2 | >= 0.5 | **no** | plant 10 jobs/s, celery 50 jobs/s"
    assert f"{row} | abc1234, 2026-11-22 |" in made.splitlines()
    assert "Measured somewhere." in made
    assert "old" not in made
    assert put_in_page(made, [missed], machine="Measured somewhere.") == made


@pytest.mark.parametrize("page", ["no marks", BEGIN_MARK, END_MARK, END_MARK + BEGIN_MARK])
def test_a_page_without_marks_is_left_alone(page: str) -> None:
    with pytest.raises(ReportError):
        put_in_page(page, [], machine="")


def test_a_quick_run_says_so() -> None:
    quick = result("one", quick=True, unit="ms", sides={"plant": 2.0, "celery": 1.0})
    assert sides_of(quick) == "plant 2 ms, celery 1 ms, quick run"


def test_the_terminal_table_has_a_row_for_each_figure() -> None:
    assert terminal_table([result("one"), result("two", 0.1)]).row_count == 2
