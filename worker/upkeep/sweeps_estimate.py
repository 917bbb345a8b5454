"""What all trials of a sweep would take together."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from shared.specs.fine_tuning import FineTuningSpec
from shared.specs.sweep_space import axes_of, trial_spec
from shared.specs.sweeps import Sweep
from worker.tuning.data.estimate import estimate
from worker.tuning.data.examined import Examined

SUMMED = ("steps", "examples_seen", "trained_tokens", "seconds", "cost")


def estimate_sweep(
    spec: FineTuningSpec,
    sweep: Sweep,
    examined: Examined,
    model_parameters: int | None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Sums of estimates of single trainings, at as many points of the space as there are trials.
    The points are drawn by the seed: what the search will choose can't be known. ``wall_seconds``
    is the work shared out to ``parallel`` workers."""
    dice, axes = random.Random(spec.seed or 0), axes_of(spec, sweep)  # noqa: S311 - not a secret
    singles = []
    for _ in range(sweep.trials):
        params = {axis.name: axis.at_random(dice) for axis in axes}
        body = FineTuningSpec.model_validate(trial_spec(spec, spec.seed or 0, params))
        singles.append(estimate(body, examined, model_parameters, settings))
    found: dict[str, Any] = {"trials": sweep.trials}
    computed = {"trials": "sums over so many points of the space, drawn by the seed"}
    for name in SUMMED:
        if all(name in single for single in singles):
            found[name] = round(sum(single[name] for single in singles), 6)
            if name in singles[0]["computed"]:
                computed[name] = f"the sum over the trials of: {singles[0]['computed'][name]}"
    if "memory_bytes" in singles[0]:
        found["memory_bytes"] = max(single["memory_bytes"] for single in singles)
        computed["memory_bytes"] = singles[0]["computed"]["memory_bytes"]
    if "seconds" in found:
        found["wall_seconds"] = math.ceil(found["seconds"] / sweep.parallel)
        computed["wall_seconds"] = f"seconds ÷ {sweep.parallel} at a time, each on its own worker"
    if sweep.pruning:
        computed["trials"] += "; pruning makes it less"
    return found | {"computed": computed}
