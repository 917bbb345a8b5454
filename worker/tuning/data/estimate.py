"""What a training would take, from the rules of ``worker.recipes.auto`` and the counted data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shared.specs.fine_tuning import FineTuningSpec
from worker.recipes.auto import Resolved, resolve, takes_adapter
from worker.tuning.data.examined import Examined
from worker.tuning.data.formats import DRAWING

PRICE = "train_cost_per_million_tokens"
SPEED = "train_tokens_per_second"
FULL_BYTES, ADAPTER_BYTES = 16, 4
"""A parameter's: float32 weight, gradient and two moments of AdamW; or a frozen float32 weight."""
FULL_FLOPS, ADAPTER_FLOPS = 6, 4
"""A parameter's and token's: forward 2 and backward 4; a frozen weight's backward is half."""
ASSUMED_FLOPS = 1e12
"""A second; between a few cores and a small GPU."""


def estimate(
    spec: FineTuningSpec,
    examined: Examined,
    model_parameters: int | None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Rough numbers for the tenant, each with how it was computed; what can't be known is left out.

    ``settings`` are the base model's: its price, its measured speed in training.
    """
    resolved = _resolved(spec, examined, model_parameters)
    steps, batch = resolved.steps, resolved.batch_size
    seen = min(steps * batch, examined.examples * resolved.n_epochs)
    found: dict[str, Any] = {
        "n_epochs": resolved.n_epochs,
        "batch_size": batch,
        "steps": steps,
        "examples_seen": seen,
        "computed": {
            "steps": f"examples × {resolved.n_epochs} epochs ÷ batch size, at most max_steps"
        },
    }
    adapter = takes_adapter(spec.recipe, spec.options.adapter, model_parameters)
    _add_memory(found, model_parameters, adapter)
    if spec.recipe in DRAWING:
        return found
    tokens = _tokens(examined, resolved, seen)
    found["trained_tokens"] = tokens
    found["computed"]["trained_tokens"] = (
        "characters ÷ 4 ÷ examples, at most max_length where one was given, × examples seen"
    )
    _add_seconds(found, tokens, model_parameters, adapter, settings or {})
    _add_cost(found, tokens, settings or {})
    return found


def _resolved(spec: FineTuningSpec, examined: Examined, parameters: int | None) -> Resolved:
    options = spec.options
    return resolve(
        options.hyperparameters.model_dump(),
        recipe=spec.recipe,
        examples=examined.examples,
        adapter=takes_adapter(spec.recipe, options.adapter, parameters),
        parameters=parameters,
        processes=spec.processes,
    )


def _tokens(examined: Examined, resolved: Resolved, seen: int) -> int:
    total = examined.examples + (examined.validation_examples if examined.held_out else 0)
    mean = examined.tokens / max(1, total)
    if resolved.max_length is not None:
        mean = min(mean, resolved.max_length)
    return math.ceil(mean * seen)


def _add_memory(found: dict[str, Any], parameters: int | None, adapter: bool) -> None:
    if parameters is None:
        return
    each = ADAPTER_BYTES if adapter else FULL_BYTES
    kept = "frozen weights" if adapter else "weights, gradients and two moments of AdamW"
    found["memory_bytes"] = parameters * each
    found["computed"]["memory_bytes"] = (
        f"{parameters} parameters × {each} bytes ({kept}), without activations"
    )


def _add_seconds(
    found: dict[str, Any],
    tokens: int,
    parameters: int | None,
    adapter: bool,
    settings: Mapping[str, Any],
) -> None:
    speed = _positive(settings.get(SPEED))
    if speed is not None:
        found["seconds"] = math.ceil(tokens / speed)
        found["computed"]["seconds"] = f"trained tokens ÷ {speed:g} tokens a second ({SPEED})"
    elif parameters is not None:
        each = ADAPTER_FLOPS if adapter else FULL_FLOPS
        found["seconds"] = math.ceil(tokens * parameters * each / ASSUMED_FLOPS)
        found["computed"]["seconds"] = (
            f"trained tokens × {parameters} parameters × {each} operations ÷ {ASSUMED_FLOPS:g} a "
            "second, which is assumed; the worker's device may be many times faster or slower"
        )


def _add_cost(found: dict[str, Any], tokens: int, settings: Mapping[str, Any]) -> None:
    price = _positive(settings.get(PRICE))
    if price is not None:
        found["cost"] = round(tokens * price / 1_000_000, 6)
        found["computed"]["cost"] = f"trained tokens ÷ 1,000,000 × {price:g}"


def _positive(value: Any) -> float | None:
    """A catalog's number, when it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None
