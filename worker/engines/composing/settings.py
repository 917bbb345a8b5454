"""What the catalog may say about a composer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.engines.base import EngineFailed


class ComposerSettings(BaseModel):
    """The composer's options in the model catalog. Unknown ones are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_size: str = Field(default="1280x720", pattern=r"^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$")
    """Of a video that asks for ``auto``."""
    max_pixels: int = Field(default=1920 * 1088, ge=64 * 64)
    """Most pixels of a frame."""
    default_fps: int = Field(default=25, ge=1, le=60)
    max_seconds: float = Field(default=600.0, gt=0)
    """Longest video."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of the encoder; 0 leaves it to the encoder."""
    fonts: list[str] = []
    """Paths of font files, tried in order before the built-in font."""


def read_composer_settings(given: dict[str, object]) -> ComposerSettings:
    """Raises EngineFailed ``bad_settings`` naming the first bad option. (``loading.read_settings``
    does the same for engines that have torch at hand.)"""
    try:
        return ComposerSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise EngineFailed("bad_settings", f"engine setting '{name}': {first['msg']}") from None
