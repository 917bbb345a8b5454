"""Whether a smaller model is good enough, and the table about it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from worker.recipes.optimizing_verdict import as_markdown, drop_of, notes_on, refusal


@pytest.mark.parametrize(
    ("before", "after", "goes_up", "drop"),
    [
        (2.0, 2.1, False, 0.05),
        (2.0, 1.9, False, -0.05),
        (0.8, 0.6, True, 0.25),
        (0.8, 0.8, True, 0.0),
        (-2.0, -2.5, True, 0.25),
        (0.0, 0.0, True, 0.0),
        (0.0, 0.1, True, 0.0),
        (0.0, 0.1, False, math.inf),
        (1.0, None, True, None),
        (1.0, math.nan, True, None),
        (None, 1.0, True, None),
    ],
)
def test_a_drop_is_a_part_of_the_value_before(
    before: float | None, after: float | None, goes_up: bool, drop: float | None
) -> None:
    found = drop_of(before, after, goes_up=goes_up)
    assert found is None if drop is None else found == pytest.approx(drop)


@pytest.mark.parametrize(
    ("after", "most", "refused"),
    [(1.02, 0.02, False), (1.03, 0.02, True), (1.03, 0.05, False), (0.5, 0.0, False)],
)
def test_a_larger_drop_is_refused(after: float, most: float, refused: bool) -> None:
    found = refusal("loss", {"before": 1.0, "after": after}, goes_up=False, most=most + 1e-9)
    assert (found is not None) == refused


def test_a_value_that_is_no_number_is_refused_whatever_is_allowed() -> None:
    found = refusal("loss", {"before": 1.0, "after": None}, goes_up=False, most=10.0)
    assert found is not None
    assert "no number" in found


def table_of(method: dict[str, Any]) -> dict[str, Any]:
    return {
        "made_of": "writer",
        "method": method,
        "metric": "loss",
        "max_drop": 0.02,
        "examples": 1234,
        "costs": {
            "disk_bytes": {"before": 2**21, "after": 2**20},
            "peak_bytes": {"before": None, "after": None},
            "tokens_per_second_alone": {"before": 10.0, "after": 15.0},
        },
        "quality": {"loss": {"before": 2.0, "after": 2.5}, "bleu": {"before": 0.0, "after": 0.0}},
        "notes": notes_on(method),
    }


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"type": "merge"}, "its adapter merged into its base"),
        ({"type": "quantize", "scheme": "int4"}, "weights in int4"),
        ({"type": "prune", "amount": 0.3, "structure": "structured"}, "30% pruned, structured"),
        ({"type": "prune", "amount": 0.3, "structure": "unstructured"}, "30% pruned, unstruct"),
    ],
)
def test_the_report_says_what_was_done_and_measured(method: dict[str, Any], said: str) -> None:
    report = as_markdown("ft:writer", table_of(method), "loss went up")
    assert said in report
    assert "| size on disk, MiB | 2 | 1 | 0.50 |" in report
    assert "| most memory until then, MiB | – | – | – |" in report
    assert "| tokens a second, one row | 10 | 15 | 1.50 |" in report
    assert "| loss | 2 | 2.5 | 1.25 |" in report
    assert "| bleu | 0 | 0 | – |" in report
    assert "Quality on 1,234 examples" in report
    assert "not offered. loss went up." in report
    assert "it may be served." in as_markdown("ft:writer", table_of(method), None)
