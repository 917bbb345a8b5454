"""The space of a sweep as axes, checked against the hyperparameters that it names. Pure."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from shared.errors import InvalidRequest
from shared.specs.fine_tuning import FROM_SCRATCH, FineTuningSpec, RecipeOptions
from shared.specs.sweeps import Dimension, Sweep

LORA = "lora"
RATES = ("learning_rate", "learning_rate_multiplier")
VALID_LOSS = "valid_loss"
ENDLESS_PATIENCE = 1_000
"""The most evaluations that early stopping can wait: it then only says which weights are best."""
MOST_STEPS = 1_000_000_000
"""From the least to the greatest number of an axis. Beyond them, and where steps are smaller than
floats can tell apart, counting overflows and looking for a number that is left does not end."""

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Choices:
    """An axis of things that are in no order."""

    name: str
    values: tuple[Any, ...]

    @property
    def points(self) -> int:
        return len(self.values)

    def at_random(self, dice: random.Random) -> Any:
        return dice.choice(self.values)


@dataclass(frozen=True, slots=True)
class Numbers:
    """An axis of numbers from ``low`` to ``high``, both included."""

    name: str
    low: float
    high: float
    step: float | None
    """None: any number between them."""
    log: bool
    whole: bool

    @property
    def points(self) -> int | None:
        """How many numbers there are; None: no end of them."""
        if self.low == self.high:
            return 1
        return None if self.step is None else _steps(self.low, self.high, self.step) + 1

    def at_random(self, dice: random.Random) -> float:
        if self.step is not None:
            found = min(self.high, self.low + self.step * dice.randrange(self.points or 1))
            return round(found) if self.whole else found
        if self.log:
            return math.exp(dice.uniform(math.log(self.low), math.log(self.high)))
        return dice.uniform(self.low, self.high)


Axis = Choices | Numbers


def check_sweep(spec: FineTuningSpec) -> None:
    """Raises InvalidRequest, which names the field, for a sweep that can't be run."""
    if spec.sweep is None:
        return
    points = count_points(axes_of(spec, spec.sweep))
    if points is not None and points < spec.sweep.trials:
        only = "one point" if points == 1 else f"{points} points"
        raise InvalidRequest(f"the space has only {only}", param="sweep.trials")


def axes_of(spec: FineTuningSpec, sweep: Sweep) -> list[Axis]:
    """In the order of their names. Raises InvalidRequest."""
    if all(name in sweep.space for name in RATES):
        raise _refused(RATES[1], "give only one of learning_rate and learning_rate_multiplier")
    return [_axis(spec.options, spec, name, sweep.space[name]) for name in sorted(sweep.space)]


def count_points(axes: Sequence[Axis]) -> int | None:
    """Of the whole space; None: no end of them."""
    counts = [axis.points for axis in axes]
    return None if None in counts else math.prod(count for count in counts if count)


def same_point(params: Params) -> str:
    """Equal for the same point."""
    return json.dumps(params, sort_keys=True)


def trial_spec(spec: FineTuningSpec, seed: int, params: Params) -> dict[str, Any]:
    """The body of a trial's own job: the sweep's, at one point, with its seed, and so its split."""
    outside = {"sweep", "hyperparameters", "method", "dry_run"}
    body = spec.model_dump(mode="json", exclude_unset=True, exclude=outside)
    body["method"] = {"type": spec.recipe, spec.recipe: _options_at(spec.options, params)}
    body["seed"] = seed
    sweep = spec.sweep
    if sweep is not None and spec.early_stopping is None and sweep.metric != VALID_LOSS:
        # So that a trial delivers its best weights by what the sweep judges it by.
        body["early_stopping"] = {
            "metric": sweep.metric,
            "mode": sweep.direction[:3],
            "patience": ENDLESS_PATIENCE,
        }
    return body


def _options_at(options: RecipeOptions, params: Params) -> dict[str, Any]:
    said = options.model_dump(mode="json", exclude_unset=True)
    for name, value in params.items():
        group, _, member = name.rpartition(".")
        said.setdefault(group or "hyperparameters", {})[member] = value
    return said


# --- checks -------------------------------------------------------------------------------------


def _axis(options: RecipeOptions, spec: FineTuningSpec, name: str, given: Dimension) -> Axis:
    group, _, member = name.rpartition(".")
    fixed: BaseModel | None = {"": options.hyperparameters, LORA: options.lora}.get(group)
    if fixed is None or member not in type(fixed).model_fields:
        raise _refused(name, "it is not the name of a hyperparameter")
    if group == LORA and (options.adapter == "none" or spec.recipe in FROM_SCRATCH):
        raise _refused(name, "no adapter is trained")
    if given.choices is not None:
        return _choices(fixed, name, given.choices)
    return _numbers(fixed, name, given)


def _choices(fixed: BaseModel, name: str, choices: Sequence[Any]) -> Choices:
    values = [
        _checked(fixed, name, value, f".choices.{place}") for place, value in enumerate(choices)
    ]
    if len({json.dumps(value) for value in values}) < len(values):
        raise _refused(name, "a choice is given twice", ".choices")
    return Choices(name, tuple(values))


def _numbers(fixed: BaseModel, name: str, given: Dimension) -> Numbers:
    low, high = (
        _checked(fixed, name, getattr(given, end), f".{end}") for end in ("min", "max")
    )  # fmt: skip
    if isinstance(low, bool) or not isinstance(low, int | float):
        raise _refused(name, "it is not a number: give choices")
    if low > high:
        raise _refused(name, "it is less than min", ".max")
    if given.log and (low <= 0 or given.step is not None):
        raise _refused(name, "it needs a min above 0, and no step", ".log")
    whole, step = isinstance(low, int), given.step
    if step is not None and (step <= 0 or (whole and step != int(step)) or step > high - low):
        kind = "a whole number" if whole else "a number"
        raise _refused(name, f"it must be {kind} above 0 and at most max - min", ".step")
    if step is not None and not _can_be_told(low, high, step):
        raise _refused(name, f"it is too small: {MOST_STEPS} steps are the most", ".step")
    if step is None and whole:
        step = 1
    if step is not None:
        high = min(high, low + step * _steps(low, high, step))
    return Numbers(name, low, high, step, given.log, whole)


def _steps(low: float, high: float, step: float) -> int:
    return math.floor((high - low) / step + 1e-9)


def _can_be_told(low: float, high: float, step: float) -> bool:
    """Whether each step is another number, and there are not too many of them."""
    return high - low <= step * MOST_STEPS and low + step > low and high - step < high


def _checked(fixed: BaseModel, name: str, value: Any, where: str) -> Any:
    """The value as its hyperparameter keeps it, beside those that are fixed."""
    member = name.rpartition(".")[2]
    if value is None:
        raise _refused(name, "null is not a value", where)
    others = fixed.model_dump(exclude_unset=True)
    try:
        made = type(fixed).model_validate(others | {member: value})
    except ValidationError as error:
        raise _refused(name, error.errors()[0]["msg"], where) from None
    return getattr(made, member)


def _refused(name: str, why: str, where: str = "") -> InvalidRequest:
    param = f"sweep.space.{name}{where}"
    return InvalidRequest(f"'{param}': {why}", param=param)
