"""What a diffusion pipeline can do, read from its class and its configuration."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

FALLBACK_SIDE = 1_024
_FALLBACK_STEPS = 50


class Task(StrEnum):
    """One kind of call; a model serves some or all of them with the same weights."""

    TEXT_TO_IMAGE = "text_to_image"
    IMAGE_TO_IMAGE = "image_to_image"
    INPAINTING = "inpainting"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the call of one pipeline takes."""

    parameters: frozenset[str]
    default_steps: int
    guidance_name: str | None
    """The parameter that guidance goes by; None for a model without."""
    default_guidance: float | None
    takes_negative: bool
    needs_negative: bool
    """Guidance works only beside a negative prompt, were it a blank."""

    @property
    def steps_visibly(self) -> bool:
        """Whether the call can be held after each step."""
        return "callback_on_step_end" in self.parameters

    @property
    def takes_strength(self) -> bool:
        return "strength" in self.parameters


def abilities(pipeline: Any) -> Abilities:
    """Reads the signature of the pipeline's call."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    # Where both exist and guidance_scale has a value, it is fed to a distilled model, and a
    # negative prompt would need a second pass that nobody asked for.
    true_cfg = "true_cfg_scale" in defaults and defaults.get("guidance_scale") is None
    name = "true_cfg_scale" if true_cfg else "guidance_scale"
    known = name in defaults
    steps = defaults.get("num_inference_steps")
    return Abilities(
        parameters=frozenset(parameters),
        default_steps=steps if isinstance(steps, int) else _FALLBACK_STEPS,
        guidance_name=name if known else None,
        default_guidance=_number(defaults[name]) if known else None,
        takes_negative="negative_prompt" in defaults
        and (true_cfg or "true_cfg_scale" not in defaults),
        needs_negative=true_cfg,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def own_size(pipeline: Any) -> tuple[int, int]:
    """(width, height) in pixels that the model was made for."""
    scale = int(getattr(pipeline, "vae_scale_factor", 8))
    parts = (getattr(pipeline, "unet", None), getattr(pipeline, "transformer", None))
    said = [getattr(getattr(part, "config", None), "sample_size", None) for part in parts]
    # Flux and its kin have no such field, and say it on the pipeline.
    for size in (*said, getattr(pipeline, "default_sample_size", None)):
        if isinstance(size, int):
            return size * scale, size * scale
        if isinstance(size, list | tuple) and len(size) == 2:  # noqa: PLR2004 - height, width
            return int(size[1]) * scale, int(size[0]) * scale
    return FALLBACK_SIDE, FALLBACK_SIDE


def size_multiple(pipeline: Any) -> int:
    """What both sides of an image must be multiples of, in pixels."""
    scale = int(getattr(pipeline, "vae_scale_factor", 8))
    if hasattr(pipeline, "_pack_latents"):
        return 2 * scale
    patch = getattr(
        getattr(getattr(pipeline, "transformer", None), "config", None), "patch_size", 1
    )
    return scale * patch if isinstance(patch, int) else scale
