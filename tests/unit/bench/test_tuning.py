"""How the benchmarks of fine-tuning compute what they say, without a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.tuning_figures import WARM_STEPS, steps_a_second
from bench.tuning_runs import Run
from bench.tuning_styles import PINK, VIOLET, nearest, two_inks
from worker.tuning.messages import Finished


def a_run(
    folder: Path, *, steps: int = 24, seconds_a_step: float = 0.5, slow_start: float = 9.0
) -> Run:
    """The first step takes ``slow_start`` longer than the others."""
    lines = []
    for step in range(1, steps + 1):
        each = (slow_start + seconds_a_step * step) / step
        lines.append(json.dumps({"step": step, "eta_seconds": each * (steps - step)}))
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
    metrics = {"before": {"valid_loss": 4.0}, "after": {"valid_loss": 1.0}}
    return Run(folder, Finished(steps, [], metrics, 0), seconds=20.0, cpu_seconds=30.0)


def test_speed_is_that_of_the_steps_after_the_first_ones(tmp_path: Path) -> None:
    assert WARM_STEPS > 1
    assert steps_a_second(a_run(tmp_path)) == pytest.approx(2.0)


def test_the_sides_of_a_run(tmp_path: Path) -> None:
    assert a_run(tmp_path).sides("valid_loss") == {"before": 4.0, "after": 1.0}


def test_two_inks_on_paper() -> None:
    given = np.array([[(255, 255, 255), (10, 10, 10), (240, 200, 150)]], np.uint8)
    printed = np.asarray(two_inks(Image.fromarray(given)))
    assert [tuple(pixel) for pixel in printed[0].tolist()] == [(255, 255, 255), VIOLET, PINK]


def test_the_nearest_is_the_one_with_the_least_error() -> None:
    known = np.stack([np.full((2, 2, 3), value, np.float32) for value in (0, 100, 250)])
    assert nearest(np.full((2, 2, 3), 130, np.float32), known) == 1
