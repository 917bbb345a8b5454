"""What the catalog may say about an image model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.specs.images import sides
from worker.engines.loading import EngineSettings

Scheduler = Literal[
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]
"""The ones that draw their noise, if any, from the images' own generators."""


class AdapterSettings(BaseModel):
    """One LoRA adapter that requests may name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    """A .safetensors file, or a folder with one, absolute or within the model's folder; else a
    hub id."""
    weight: float = Field(default=1.0, ge=-4, le=4)
    """Its strength at a request's ``adapter_weight`` of 1."""


class ImageSettings(EngineSettings):
    """The image engine's options in the model catalog."""

    scheduler: Scheduler | None = None
    """Instead of the one that the model ships."""
    default_steps: int | None = Field(default=None, ge=1)
    """Denoising steps of a request that names none; what the pipeline's authors chose."""
    default_guidance: float | None = Field(default=None, ge=0, le=50)
    default_size: str | None = Field(default=None, pattern="^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$")
    """``WIDTHxHEIGHT`` of ``auto``; the size that the model was made for."""
    size_multiple: int | None = Field(default=None, ge=1, le=256)
    """What both sides must be multiples of; what the model's layers need."""
    max_side: int = Field(default=2_048, ge=8)
    max_pixels: int = Field(default=2_048 * 2_048, ge=64)
    """Of one image."""
    max_steps: int = Field(default=150, ge=1)
    max_n: int = Field(default=10, ge=1)
    """Images of one request."""
    microbatch: int | None = Field(default=None, ge=1, le=256)
    """Most images at a time, over all lanes; as many as have four megapixels together, at most 32
    a lane."""
    lanes: int | None = Field(default=None, ge=1, le=64)
    """Threads that draw parts of a microbatch side by side; on a CPU one for each thread that
    computes, at most 4, elsewhere 1."""
    offload: Literal["none", "model", "sequential", "auto"] = "auto"
    """Keep components in main memory while a GPU doesn't need them; ``auto`` goes by what fits."""
    vae_slicing: bool | None = None
    """Decode images one at a time; unset, where a microbatch would not fit the free memory."""
    vae_tiling: bool | None = None
    """Decode an image in tiles; unset, where the largest image would not fit the free memory."""
    adapters: dict[str, AdapterSettings] = Field(default_factory=dict)
    max_adapters: int = Field(default=8, ge=1, le=256)
    """Most adapters of tuned models that are loaded at a time, beside those above."""

    @model_validator(mode="after")
    def _defaults_within_caps(self) -> ImageSettings:
        if self.default_steps is not None and self.default_steps > self.max_steps:
            raise ValueError("default_steps is over max_steps")
        size = sides(self.default_size or "auto")
        if size is not None and (max(size) > self.max_side or size[0] * size[1] > self.max_pixels):
            raise ValueError("default_size is over max_side or max_pixels")
        return self
