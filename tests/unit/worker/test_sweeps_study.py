"""What is tried next, and what is given up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from shared.db.sweeps import Trial
from shared.specs.fine_tuning import FineTuningSpec
from shared.specs.sweep_space import Axis, axes_of, same_point
from worker.upkeep.sweeps import best_of, next_trials, why_none
from worker.upkeep.sweeps_study import hopeless, judged_after, suggest

SPACE = {
    "learning_rate": {"min": 1e-6, "max": 1e-1, "log": True},
    "lora.target_modules": {"choices": [["q"], ["q", "v"]]},
}


def spec_of(space: dict[str, Any], trials: int = 20, **sweep: Any) -> FineTuningSpec:
    asked = {"trials": trials, "space": space} | sweep
    return FineTuningSpec.model_validate({"model": "m", "training_file": "f", "sweep": asked})


def axes(space: dict[str, Any]) -> list[Axis]:
    spec = spec_of(space)
    assert spec.sweep is not None
    return axes_of(spec, spec.sweep)


def trial(number: int, params: dict[str, Any], value: float | None = None, **fields: Any) -> Trial:
    values: dict[str, Any] = {
        "job_id": f"ftjob-{number}",
        "number": number,
        "params": params,
        "value": value,
        "evaluations": (),
        "pruned": False,
        "ended": True,
        "state": "failed" if value is None else "succeeded",
        "model": None if value is None else f"ft:{number}",
    }
    return Trial(**(values | fields))


def ask(known: list[Trial], space: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"trials": 20, "minimize": True, "seed": 3, "number": len(known) + 1}
    return suggest(axes(space or SPACE), known, **(values | options))


def run(trials: int, seed: int) -> list[Trial]:
    known: list[Trial] = []
    for number in range(1, trials + 1):
        params = ask(known, trials=trials, seed=seed)
        known.append(trial(number, params, abs(math.log10(params["learning_rate"]) + 3)))
    return known


def test_the_same_trials_lead_to_the_same_next_one_and_other_seeds_to_others() -> None:
    known = run(6, seed=3)
    assert ask(known) == ask(known)
    assert ask(known) != ask(known, seed=4)


def test_it_learns_where_good_values_are() -> None:
    """Over some searches, the last ten of thirty trials are nearer to the best rate than the first
    ten."""
    values = [[item.value or 0.0 for item in run(30, seed=seed)] for seed in range(5)]
    first, last = (sum(sum(one[part]) for one in values) for part in (slice(10), slice(-10, None)))
    assert last < 0.6 * first


def test_every_state_of_a_trial_can_be_told() -> None:
    point = {"learning_rate": 0.01, "lora.target_modules": ["q", "v"]}
    known = [
        trial(1, point, 0.5, evaluations=(0.7, 0.5)),
        trial(2, point),
        trial(3, point, pruned=True, evaluations=(0.9,)),
        trial(4, point, pruned=True),
        trial(5, point, ended=False),
    ]
    params = ask(known, trials=3)
    assert 1e-6 <= params["learning_rate"] <= 1e-1
    assert params["lora.target_modules"] in (["q"], ["q", "v"])


@pytest.mark.parametrize(
    "space",
    [
        {"n_epochs": {"min": 1, "max": 4}, "lr_schedule": {"choices": ["linear", "cosine"]}},
        {"warmup_ratio": {"min": 0, "max": 0.35, "step": 0.05}},
        {"max_steps": {"min": 10, "max": 90_000, "step": 10}},
    ],
)
def test_no_point_is_tried_twice_while_one_is_left(space: dict[str, Any]) -> None:
    known: list[Trial] = []
    for number in range(1, 9):
        known.append(trial(number, ask(known, space), 1.0))
    assert len({same_point(item.params) for item in known}) == 8


def test_trials_that_are_suggested_together_differ() -> None:
    spec = spec_of({"n_epochs": {"min": 1, "max": 4}}, trials=4, parallel=4)
    assert spec.sweep is not None
    made = next_trials("ftjob-x", spec, spec.sweep, [], 4)
    assert [item.number for item in made] == [1, 2, 3, 4]
    assert sorted(item.params["n_epochs"] for item in made) == [1, 2, 3, 4]
    assert len({item.job_id for item in made}) == 4
    assert next_trials("ftjob-x", spec, spec.sweep, [], -1) == []


# --- pruning ------------------------------------------------------------------------------------

FINISHED = [[3.0, 2.0, 1.0], [3.0, 2.2, 1.2], [3.0, 2.4]]


def judge(evaluations: list[float], *, minimize: bool = True, trials: int = 8) -> str | None:
    return hopeless(evaluations, FINISHED, trials=trials, minimize=minimize)


def test_a_trial_that_was_never_as_good_as_half_of_them_is_hopeless() -> None:
    why = judge([3.5, 2.3])
    assert why is not None
    assert "after 2 evaluations its best is 2.3" in why
    assert "2.2" in why


@pytest.mark.parametrize(
    "evaluations",
    [
        [],
        [99.0],  # too early to tell
        [3.0, 2.1],
        [2.0, 9.0],  # it was better once, and that is what it would deliver
        [9.0, 9.0, 9.0, 9.0],  # none of the others came so far
    ],
)
def test_others_go_on(evaluations: list[float]) -> None:
    assert judge(evaluations) is None


def test_the_direction_counts() -> None:
    assert judge([1.0, 1.0], minimize=False) is not None
    assert judge([9.0, 9.0], minimize=False) is None


def test_nobody_is_judged_by_few() -> None:
    assert judged_after(64) == 5
    assert judge([9.0, 9.0], trials=64) is None
    assert judge([9.0, 9.0], trials=6) is not None


# --- the best -----------------------------------------------------------------------------------


def test_the_best_is_one_whose_model_is_there() -> None:
    found = [trial(1, {}, 0.5), trial(2, {}, 0.2, model=None), trial(3, {}, 0.5), trial(4, {})]
    lowest = best_of(found, minimize=True)
    assert lowest is not None
    assert lowest.number == 1
    assert best_of([found[1], found[3]], minimize=False) is None


def test_the_commonest_reason_is_told() -> None:
    failed = [trial(n, {}, error_message="out of memory") for n in (1, 2)]
    assert why_none([*failed, trial(3, {}, state="cancelled")], "valid_loss").endswith(
        "2 of them: out of memory"
    )
    unmeasured = [trial(n, {}, state="succeeded") for n in (1, 2)]
    assert why_none(unmeasured, "bleu").endswith("all of them: its recipe measures no bleu")
    assert "pruned" in why_none([trial(1, {}, state="cancelled", pruned=True)], "x")
