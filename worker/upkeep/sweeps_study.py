"""What to try next, and what to give up: Optuna, asked about trials that Postgres knows.

A study lives for one question. It is made of what the trials' rows say, and the sampler's seed of
the sweep's and the trial's number, so that the same trials always lead to the same next one.
Optuna is imported when the first question is asked.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from types import ModuleType
from typing import TYPE_CHECKING, Any

from shared.db.sweeps import Trial
from shared.errors import PressrunError
from shared.specs.sweep_space import Axis, Choices, Numbers, count_points, same_point

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

MOST_LISTED = 4_096
"""Points of a space that are listed to find one that is left; larger spaces are drawn from."""
FIRST_JUDGED = 2
"""The evaluation from which on a trial may be pruned: what it says before that is mostly chance."""


class NoOptuna(PressrunError):
    """This upkeep process has no Optuna installed."""

    code = "sweeps_unavailable"


def random_trials(trials: int) -> int:
    """How many finished trials the suggestions need before they learn from them; fewer are drawn
    at random."""
    return max(3, min(10, trials // 3))


def judged_after(trials: int) -> int:
    """How many trials have to finish before others are pruned."""
    return min(5, max(2, trials // 4))


def suggest(
    axes: Sequence[Axis],
    known: Sequence[Trial],
    *,
    trials: int,
    minimize: bool,
    seed: int,
    number: int,
) -> dict[str, Any]:
    """The parameters of trial ``number``, which no trial has tried where the space allows it.
    ``known`` are all that there are, the open ones too. Raises NoOptuna."""
    optuna = _optuna()
    seed = random.Random(f"{seed}/{number}").getrandbits(32)  # noqa: S311 - not a secret
    sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=random_trials(trials), constant_liar=True
    )
    study = _study(optuna, minimize, sampler)
    distributions = {axis.name: _distribution(optuna, axis) for axis in axes}
    for trial in known:
        study.add_trial(_as_known(optuna, axes, distributions, trial))
    asked = study.ask(distributions)
    params = {axis.name: _decoded(axis, asked.params[axis.name]) for axis in axes}
    return _untried(params, axes, {same_point(trial.params) for trial in known}, seed)


def _untried(
    params: dict[str, Any], axes: Sequence[Axis], tried: Collection[str], seed: int
) -> dict[str, Any]:
    """``params``, or a point by chance that is left. A search has few trials, so that all of a
    large space are never tried."""
    points = count_points(axes)
    if points is None or same_point(params) not in tried:
        return params
    dice = random.Random(seed)  # noqa: S311 - not a secret
    if points > MOST_LISTED:
        while same_point(params) in tried:
            params = {axis.name: axis.at_random(dice) for axis in axes}
        return params
    names = [axis.name for axis in axes]
    listed = (dict(zip(names, values, strict=True)) for values in product(*map(_values, axes)))
    left = [point for point in listed if same_point(point) not in tried]
    return dice.choice(left) if left else params


def _values(axis: Axis) -> list[Any]:
    if isinstance(axis, Choices):
        return list(axis.values)
    step = axis.step or 0
    found = [min(axis.high, axis.low + step * place) for place in range(axis.points or 1)]
    return [int(value) for value in found] if axis.whole else found


def hopeless(
    evaluations: Sequence[float],
    finished: Sequence[Sequence[float]],
    *,
    trials: int,
    minimize: bool,
) -> str | None:
    """Why a trial with these evaluations is not worth going on with: it was never as good as half
    of the finished ones were after as many. None: it goes on. Raises NoOptuna."""
    optuna, place = _optuna(), len(evaluations)
    reached = [values[place - 1] for values in finished if len(values) >= place]
    if place < FIRST_JUDGED or len(finished) < judged_after(trials) or not reached:
        return None
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=judged_after(trials), n_warmup_steps=FIRST_JUDGED
    )
    study = _study(optuna, minimize, None)
    for values in finished:
        study.add_trial(_reported(optuna, optuna.trial.TrialState.COMPLETE, values))
    running = _reported(optuna, optuna.trial.TrialState.RUNNING, evaluations)
    if not pruner.prune(study, running):
        return None
    best = min(evaluations) if minimize else max(evaluations)
    median = statistics.median(reached)
    return (
        f"after {place} evaluations its best is {best:.6g}; the median of {len(reached)} finished "
        f"trials was {median:.6g}"
    )


# --- Optuna -------------------------------------------------------------------------------------


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise NoOptuna(
            "sweeps need Optuna, which is not installed where upkeep runs: it is in the extra"
            " 'worker'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: ModuleType, minimize: bool, sampler: Any) -> Study:
    study: Study = optuna.create_study(
        study_name="sweep", direction="minimize" if minimize else "maximize", sampler=sampler
    )
    return study


def _distribution(optuna: ModuleType, axis: Axis) -> BaseDistribution:
    kinds = optuna.distributions
    found: BaseDistribution
    if isinstance(axis, Choices):
        found = kinds.CategoricalDistribution(tuple(range(len(axis.values))))
    elif axis.whole:
        step = int(axis.step or 1)
        found = kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=step)
    else:
        found = kinds.FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
    return found


def _as_known(
    optuna: ModuleType,
    axes: Sequence[Axis],
    distributions: Mapping[str, BaseDistribution],
    trial: Trial,
) -> FrozenTrial:
    states = optuna.trial.TrialState
    state = states.RUNNING
    if trial.ended:
        state = states.FAIL if trial.value is None else states.COMPLETE
        if trial.pruned:
            state = states.PRUNED
    found: FrozenTrial = optuna.trial.create_trial(
        state=state,
        value=trial.value if state == states.COMPLETE else None,
        params={axis.name: _encoded(axis, trial.params[axis.name]) for axis in axes},
        distributions=dict(distributions),
        intermediate_values=dict(enumerate(trial.evaluations, start=1)),
    )
    return found


def _reported(optuna: ModuleType, state: Any, values: Sequence[float]) -> FrozenTrial:
    finished = state == optuna.trial.TrialState.COMPLETE
    found: FrozenTrial = optuna.trial.create_trial(
        state=state,
        value=values[-1] if finished else None,
        intermediate_values=dict(enumerate(values, start=1)),
    )
    return found


def _encoded(axis: Axis, value: Any) -> Any:
    """Of choices, which may be lists, Optuna sees the places."""
    if isinstance(axis, Numbers):
        return value
    return [json.dumps(choice) for choice in axis.values].index(json.dumps(value))


def _decoded(axis: Axis, value: Any) -> Any:
    return value if isinstance(axis, Numbers) else axis.values[value]
