from __future__ import annotations

import io

from PIL import Image

from worker.recipes.sweep_chart import BEST, COLOURS, best_so_far, bounds, draw_trials


def chart(*values: float | None) -> dict[str, object]:
    trials = [
        {"number": n, "outcome": "failed" if value is None else "finished", "value": value}
        for n, value in enumerate(values, start=1)
    ]
    return {"metric": "valid_loss", "minimize": True, "best": 2, "trials": trials}


def colours(png: bytes) -> set[str]:
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in image.getcolors(2**20) or []}


def test_every_trial_and_the_best_are_drawn() -> None:
    shown = colours(draw_trials(chart(0.5, 0.2, None, 0.7)))
    assert {COLOURS["finished"], COLOURS["failed"], BEST} <= shown
    assert COLOURS["pruned"] not in shown


def test_a_sweep_of_one_trial_and_one_without_values_can_be_drawn() -> None:
    assert draw_trials(chart(0.5)).startswith(b"\x89PNG")
    assert draw_trials(chart(None, None)).startswith(b"\x89PNG")


def test_a_bad_value_that_is_far_out_does_not_press_the_rest_flat() -> None:
    low, high = bounds([1.0, 1.1, 1.2, 1.3, 900.0], minimize=True)
    assert low < 1.0
    assert high < 2
    low, high = bounds([-900.0, 1.0, 1.1, 1.2, 1.3], minimize=True)
    assert low < -900  # the best is always seen


def test_the_best_so_far_is_of_finished_trials() -> None:
    trials = [
        {"number": 1, "outcome": "finished", "value": 3.0},
        {"number": 2, "outcome": "pruned", "value": 1.0},
        {"number": 3, "outcome": "finished", "value": 4.0},
        {"number": 4, "outcome": "finished", "value": 2.0},
    ]
    assert best_so_far(trials, minimize=True) == [(1, 3.0), (3, 3.0), (4, 2.0)]
    assert best_so_far(trials, minimize=False) == [(1, 3.0), (3, 4.0), (4, 4.0)]
