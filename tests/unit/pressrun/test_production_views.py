"""Productions on a terminal and in a pipe: the same numbers, looked at or read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from pressrun.production_pictures import BAR, widths
from pressrun.production_views import counts, previewed, problems

SUMMARY: dict[str, Any] = {
    "rows": 1_000, "items": 1_000, "candidates": 2_000, "lines": 1_000,
    "succeeded": 990, "rejected": 8, "failed": 1, "not_found": 1,
    "rejected_by_gate": {"required": 8}, "refusals": {"language": 40, "required": 120},
    "failed_by_code": {"engine_crashed": 1}, "rounds": 3, "regenerated": 31,
    "duplicates_removed": 2, "input_tokens": 5_000, "output_tokens": 9_000, "labels": None,
}  # fmt: skip
PREVIEW: dict[str, Any] = {
    "candidates": 2,
    "models": ["writer"],
    "data": [
        {
            "row": 1,
            "audience": "students",
            "error": None,
            "prompts": [
                {"step": "facts", "messages": [{"role": "user", "content": "Facts of tea."}]},
                {
                    "step": None,
                    "messages": [
                        {"role": "system", "content": "Be brief.\x1b[2J"},
                        {"role": "user", "content": "[bold]Praise[/bold]\n" + "x" * 2_500},
                    ],
                },
            ],
        },
        {"row": 2, "audience": None, "error": "nothing is left", "prompts": []},
    ],
}


def shown(made: RenderableType, *, terminal: bool) -> str:
    console = Console(width=100, force_terminal=terminal, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(made, markup=False)
    return captured.get()


def production(**changed: Any) -> dict[str, Any]:
    return {"status": "succeeded", "summary": SUMMARY, "estimate": None, "error": None, **changed}


def test_in_a_pipe_each_number_has_a_line() -> None:
    said = shown(counts(production()), terminal=False)
    pairs = [tuple(line.rsplit(maxsplit=1)) for line in said.splitlines()]
    assert ("lines", "1000") in pairs
    assert ("    by required", "8") in pairs
    assert "█" not in said


def test_on_a_terminal_the_parts_of_the_whole_are_a_bar() -> None:
    lines = shown(counts(production(), pictured=True), terminal=True).splitlines()
    assert lines[0].strip() == "990 of 1,000 lines kept (99%)"
    assert lines[1].strip() == "█" * (BAR - 3) + "▓▒░"  # a single line is seen, too
    assert lines[2].strip() == "█ 990 succeeded   ▓ 8 rejected   ▒ 1 failed   ░ 1 not found"
    gates = [line.split() for line in lines if line.startswith(("required", "language"))]
    assert [gate[:3] for gate in gates] == [["required", "120", "8"], ["language", "40", "0"]]
    assert len(gates[0][3]) == 3 * len(gates[1][3])
    assert "engine_crashed" in "".join(lines)
    assert "regenerated 31 · near-duplicates removed 2" in lines[-2]
    assert lines[-1].strip() == "5,000 tokens in, 9,000 out"


def test_labels_that_are_short_are_told_apart() -> None:
    labels = {"refund": {"made": 3, "asked": 12}, "delivery": {"made": 12, "asked": 12}}
    summary = {**SUMMARY, "labels": labels}
    said = shown(counts(production(summary=summary), pictured=True), terminal=True)
    [short] = [line.split() for line in said.splitlines() if line.startswith("refund")]
    assert short[1:] == ["3", "12", "█" * 6]


def test_a_production_without_any_line() -> None:
    nothing: dict[str, Any] = {
        name: {} if isinstance(value, dict) else value and 0 for name, value in SUMMARY.items()
    }
    said = shown(counts(production(summary=nothing), pictured=True), terminal=True)
    assert "0 of 0 lines kept" in said


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_a_bar_is_whole_and_shows_whatever_there_is(parts: list[int]) -> None:
    found = widths(parts, BAR)
    assert sum(found) == (BAR if any(parts) else 0)
    assert [width > 0 for width in found] == [part > 0 for part in parts]


@pytest.mark.parametrize("pictured", [True, False])
def test_a_preview_shows_every_message_and_obeys_none(pictured: bool) -> None:
    said = shown(previewed(PREVIEW, pictured=pictured), terminal=pictured)
    for part in ("2 candidates an item, by writer", "row 1 for students", "step facts",
                 "Facts of tea.", "[bold]Praise[/bold]", "(2520 characters)",
                 "can't be asked: nothing is left"):  # fmt: skip
        assert part in said
    if pictured:
        assert "\x1b[2J" not in said


def test_what_the_error_says_itself_is_not_listed_again() -> None:
    missing = {"line": None, "code": "invalid_request", "message": "the data has no column 'x'"}
    bad = {"line": 3, "code": "row_too_long", "message": "it is too long"}
    whole = production(error={"code": "invalid_request", "message": missing["message"],
                              "lines": [missing]})  # fmt: skip
    rows = production(error={"code": "invalid_input_file", "message": "1 bad row", "lines": [bad]})
    assert problems(whole) == []
    assert problems(rows) == [bad]
    assert problems(production()) == []
