"""What the catalog may say about a video model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker.engines.loading import EngineSettings


class VideoSettings(EngineSettings):
    """The video engine's options in the model catalog."""

    default_size: str | None = Field(default=None, pattern="^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$")
    """``WIDTHxHEIGHT`` of ``auto``; what the pipeline's authors chose."""
    size_multiple: int | None = Field(default=None, ge=2, le=256, multiple_of=2)
    """What both sides must be multiples of; what the pipeline's family needs."""
    max_pixels: int = Field(default=1280 * 736, ge=64)
    """Of a frame."""
    default_seconds: float | None = Field(default=None, gt=0)
    """Of a request that names none; what the pipeline's authors chose."""
    max_seconds: float = Field(default=20.0, gt=0)
    max_frames: int = Field(default=257, ge=2)
    default_fps: int | None = Field(default=None, ge=1, le=60)
    default_steps: int | None = Field(default=None, ge=1)
    max_steps: int = Field(default=100, ge=1)
    default_guidance: float | None = Field(default=None, ge=0, le=50)
    offload: Literal["none", "model", "sequential", "auto"] = "auto"
    """Keep components in main memory while a GPU doesn't need them; ``auto`` goes by what fits."""
    vae_tiling: bool = True
    """Decode large frames in tiles: slower and with less memory."""
    encoder_threads: int = Field(default=0, ge=0)
    """CPU threads of the video encoder; 0 leaves it to the encoder."""
