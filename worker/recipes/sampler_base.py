"""The base model of a recipe that draws classes: an earlier one of the same kind, or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from worker.engines.samplers.drawing import Sampler
from worker.engines.samplers.loading import load_sampler
from worker.recipes.shape import RecipeError

if TYPE_CHECKING:
    from worker.engines.samplers.manifest import Kind
    from worker.recipes.context import Context


def load_base(context: Context, kind: Kind) -> Sampler | None:
    """None to start from nothing. Raises RecipeError ``unsuitable_base``."""
    if not context.plan.base:
        return None
    try:
        sampler = load_sampler(Path(context.plan.base), torch.device("cpu"), torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise RecipeError(
            "unsuitable_base",
            f"{context.plan.base_model or 'the base model'} is no model that this recipe has made",
            "request",
            "model",
        ) from error
    if sampler.manifest.kind != kind:
        raise RecipeError(
            "unsuitable_base",
            f"the base model was made by the recipe {sampler.manifest.kind}, not {kind}",
            "request",
            "model",
        )
    return sampler
