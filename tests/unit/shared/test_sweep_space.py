"""Spaces of sweeps: what is refused, and by which name; what a trial is told."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import InvalidFields
from api.parsing import decode_json
from api.tuning_requests import read_tuning
from shared.errors import InvalidRequest
from shared.specs.fine_tuning import FineTuningSpec
from shared.specs.sweep_space import Axis, axes_of, count_points, same_point, trial_spec
from shared.specs.sweeps import MAX_TRIALS

RATE = {"min": 1e-5, "max": 1e-2, "log": True}


def body(space: Any, trials: int = 2, **fields: Any) -> dict[str, Any]:
    sweep = {"trials": trials, "space": space} | fields.pop("sweep", {})
    return {"model": "m", "training_file": "file-a", "sweep": sweep} | fields


def spec_of(space: Any, trials: int = 2, **fields: Any) -> FineTuningSpec:
    """Through the door."""
    return read_tuning(decode_json(json.dumps(body(space, trials, **fields)).encode())).spec


def axes(space: Any, **fields: Any) -> list[Axis]:
    spec = spec_of(space, **fields)
    assert spec.sweep is not None
    return axes_of(spec, spec.sweep)


def supervised(**options: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": options}}


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ({"nothing": RATE}, {}, "sweep.space.nothing"),
    ({"lora": RATE}, {}, "sweep.space.lora"),
    ({"lora.nothing": RATE}, {}, "sweep.space.lora.nothing"),
    ({"hyperparameters.beta": RATE}, {}, "sweep.space.hyperparameters.beta"),
    ({"learning_rate": {"min": 0.1, "max": 0.01}}, {}, "sweep.space.learning_rate.max"),
    ({"learning_rate": {"min": 0, "max": 0.1}}, {}, "sweep.space.learning_rate.min"),
    ({"learning_rate": {"min": 0.1, "max": 2}}, {}, "sweep.space.learning_rate.max"),
    ({"weight_decay": {"min": 0, "max": 0.1, "log": True}}, {}, "sweep.space.weight_decay.log"),
    ({"n_epochs": {"min": 1, "max": 9, "log": True, "step": 2}}, {}, "sweep.space.n_epochs.log"),
    ({"n_epochs": {"min": 1, "max": 3, "step": 0}}, {}, "sweep.space.n_epochs.step"),
    ({"n_epochs": {"min": 1, "max": 3, "step": 0.5}}, {}, "sweep.space.n_epochs.step"),
    ({"n_epochs": {"min": 1, "max": 3, "step": 5}}, {}, "sweep.space.n_epochs.step"),
    ({"weight_decay": {"min": 0, "max": 0.5, "step": 1e-320}}, {}, "sweep.space.weight_decay.step"),
    ({"weight_decay": {"min": 0, "max": 0.5, "step": 1e-30}}, {}, "sweep.space.weight_decay.step"),
    (
        {"weight_decay": {"min": 1 - 2**-53, "max": 1, "step": 2e-25}},
        {},
        "sweep.space.weight_decay.step",
    ),
    ({"n_epochs": {"min": 1.5, "max": 3}}, {}, "sweep.space.n_epochs.min"),
    ({"lr_schedule": {"min": 1, "max": 2}}, {}, "sweep.space.lr_schedule.min"),
    ({"packing": {"min": 0, "max": 1}}, {}, "sweep.space.packing"),
    ({"lr_schedule": {"choices": ["linear", "steep"]}}, {}, "sweep.space.lr_schedule.choices.1"),
    ({"batch_size": {"choices": [4, {}]}}, {}, "sweep.space.batch_size.choices.1"),
    ({"batch_size": {"choices": [4, None]}}, {}, "sweep.space.batch_size.choices.1"),
    ({"batch_size": {"choices": [4, 4.0]}}, {}, "sweep.space.batch_size.choices"),
    ({"lora.target_modules": {"choices": [["a"], ["(a+)+$"]]}}, {},
     "sweep.space.lora.target_modules.choices.1"),
    ({"learning_rate": RATE, "learning_rate_multiplier": RATE}, {},
     "sweep.space.learning_rate_multiplier"),
    ({"learning_rate": RATE}, supervised(hyperparameters={"learning_rate_multiplier": 2}),
     "sweep.space.learning_rate.min"),
    ({"lora.rank": {"min": 1, "max": 9}}, supervised(adapter="none"), "sweep.space.lora.rank"),
    ({"lora.rank": {"min": 1, "max": 9}}, {"model": "gan", "method": {"type": "gan"}},
     "sweep.space.lora.rank"),
    ({"batch_size": {"choices": [2]}}, {}, "sweep.trials"),
    ({"batch_size": {"choices": [2, 4]}, "n_epochs": {"min": 1, "max": 2}}, {"trials": 5},
     "sweep.trials"),
]  # fmt: skip


@pytest.mark.parametrize(("space", "fields", "param"), REFUSED)
def test_a_bad_space_is_refused_by_name(space: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        spec_of(space, **fields)
    assert error.value.param == param


@pytest.mark.parametrize(
    ("sweep", "param"),
    [
        ({"space": {}}, "sweep.space"),
        ({"space": {"Learning Rate": RATE}}, "sweep.space.Learning Rate"),
        ({"space": {"learning_rate": {"min": 1}}}, "sweep.space.learning_rate"),
        ({"space": {"learning_rate": {"choices": []}}}, "sweep.space.learning_rate.choices"),
        ({"space": {"learning_rate": RATE | {"choices": [1]}}}, "sweep.space.learning_rate"),
        ({"space": {"learning_rate": RATE | {"most": 1}}}, "sweep.space.learning_rate.most"),
        ({"trials": 0}, "sweep.trials"),
        ({"trials": MAX_TRIALS + 1}, "sweep.trials"),
        ({"parallel": 0}, "sweep.parallel"),
        ({"metric": "Loss!"}, "sweep.metric"),
        ({"direction": "down"}, "sweep.direction"),
        ({"bogus": 1}, "sweep.bogus"),
    ],
)
def test_a_sweep_of_no_shape_is_refused_by_name(sweep: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidFields) as error:
        spec_of({"learning_rate": RATE}, sweep=sweep)
    assert error.value.param == param


@pytest.mark.parametrize("end", [True, "1", [], {}])
def test_an_end_that_is_no_number_is_refused(end: Any) -> None:
    with pytest.raises(InvalidFields) as error:
        spec_of({"n_epochs": {"min": end, "max": 3}})
    assert str(error.value.param).startswith("sweep.space.n_epochs.min")


def test_points_are_counted_where_there_is_an_end_of_them() -> None:
    assert count_points(axes({"learning_rate": RATE})) is None
    assert count_points(axes({"batch_size": {"min": 2, "max": 11, "step": 4}}, trials=3)) == 3
    assert count_points(axes({"warmup_ratio": {"min": 0, "max": 0.3, "step": 0.1}})) == 4
    assert count_points(axes({"n_epochs": {"min": 3, "max": 3}}, trials=1)) == 1
    both = {"n_epochs": {"min": 1, "max": 5}, "lr_schedule": {"choices": ["linear", "cosine"]}}
    assert count_points(axes(both)) == 10


def test_a_trial_is_told_its_point_beside_what_all_have() -> None:
    spec = spec_of(
        {"learning_rate": RATE, "lora.rank": {"choices": [4, 8]}},
        hyperparameters={"n_epochs": 3},
        suffix="s",
        metadata={"team": "a"},
        validation_split=0.2,
        dry_run=True,
    )
    told = trial_spec(spec, 9, {"learning_rate": 0.001, "lora.rank": 8})
    assert told == {
        "model": "m",
        "training_file": "file-a",
        "suffix": "s",
        "metadata": {"team": "a"},
        "validation_split": 0.2,
        "seed": 9,
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"n_epochs": 3, "learning_rate": 0.001},
                "lora": {"rank": 8},
            },
        },
    }


def test_a_trial_delivers_its_best_by_what_it_is_judged_by() -> None:
    space, sweep = {"learning_rate": RATE}, {"metric": "accuracy", "direction": "maximize"}
    told = trial_spec(spec_of(space, sweep=sweep), 1, {"learning_rate": 0.1})
    assert (told["early_stopping"]["metric"], told["early_stopping"]["mode"]) == ("accuracy", "max")
    asked = {"metric": "valid_loss", "patience": 2}
    told = trial_spec(spec_of(space, sweep=sweep, early_stopping=asked), 1, {"learning_rate": 0.1})
    assert told["early_stopping"] == asked
    assert "early_stopping" not in trial_spec(spec_of(space), 1, {"learning_rate": 0.1})


@given(st.integers(0, 10_000))
def test_any_point_of_a_space_is_a_training_that_can_be_asked_for(seed: int) -> None:
    spec = FineTuningSpec.model_validate(
        body(
            {
                "learning_rate": RATE,
                "warmup_ratio": {"min": 0.0, "max": 0.5, "step": 0.1},
                "weight_decay": {"min": 0, "max": 1},
                "batch_size": {"min": 1, "max": 1024, "log": True},
                "lora.alpha": {"min": 1, "max": 2048, "step": 0.7},
                "lora.target_modules": {"choices": [["q_proj"], ["q_proj", "v_proj"]]},
            }
        )
    )
    dice = random.Random(seed)
    assert spec.sweep is not None
    params = {axis.name: axis.at_random(dice) for axis in axes_of(spec, spec.sweep)}
    made = FineTuningSpec.model_validate(trial_spec(spec, 1, params))
    assert made.options.hyperparameters.batch_size == params["batch_size"]
    assert same_point(params) == same_point(dict(reversed(params.items())))
