"""``/v1/videos`` (generated or composed) and ``/v1/videos/compositions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.specs.common import InferenceSpec
from shared.specs.images import Prompt, Size
from shared.specs.media import MediaReference

MAX_SECONDS = 600
MAX_SCENES = 64
MAX_SCRIPT_CHARACTERS = 20_000

VideoFormat = Literal["mp4", "webm"]
Style = Literal["slides", "presenter"]
Motion = Literal["auto", "none", "zoom_in", "zoom_out", "pan_left", "pan_right", "pan_up"]
Transition = Literal["cut", "crossfade", "slide", "wipe"]


class VideoSpec(InferenceSpec):
    """A video from a text: generated frame by frame when the model is a video pipeline, composed of
    narration, pictures and captions when it is a composer. Members of the other way are refused
    by name."""

    prompt: Prompt
    """What to show. A composer without a ``script`` reads the prompt aloud."""
    seconds: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}$")] | None = None
    """Length; a composed video is as long as its narration and ignores nothing: it refuses this."""
    size: Size = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    output_format: VideoFormat = "mp4"
    fps: Annotated[int, Field(ge=1, le=60)] | None = None

    # Generated videos.
    input_reference: MediaReference | None = None
    """The first frame, for image-to-video pipelines."""
    steps: Annotated[int, Field(ge=1, le=500)] | None = None
    guidance: Annotated[float, Field(ge=0, le=50)] | None = None
    negative_prompt: Annotated[str, Field(max_length=32_000)] | None = None

    # Composed videos.
    style: Style | None = None
    """``slides`` (pictures with motion) or ``presenter`` (a portrait that speaks)."""
    script: Annotated[str, Field(min_length=1, max_length=MAX_SCRIPT_CHARACTERS)] | None = None
    pictures: Annotated[list[MediaReference], Field(max_length=MAX_SCENES)] | None = None
    """Shown in order, one a scene; without any, they are generated from the script."""
    portrait: MediaReference | None = None
    """The presenter's face; without one it is generated."""
    title: Annotated[str, Field(max_length=200)] | None = None
    subtitle: Annotated[str, Field(max_length=200)] | None = None
    voice: Annotated[str, Field(max_length=128)] = "default"
    captions: bool = True
    transition: Transition = "crossfade"
    logo: MediaReference | None = None
    music: MediaReference | None = None
    image_model: Annotated[str, Field(max_length=256)] | None = None
    speech_model: Annotated[str, Field(max_length=256)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _openai_words(cls, data: Any) -> Any:
        """Forms send numbers as text and JSON clients the other way round; ``null`` is unset."""
        if not isinstance(data, dict):
            return data
        given = {name: value for name, value in data.items() if value is not None}
        if isinstance(given.get("seconds"), int) and not isinstance(given["seconds"], bool):
            given["seconds"] = str(given["seconds"])
        return given

    def media(self) -> Sequence[MediaReference]:
        single = (self.input_reference, self.portrait, self.logo, self.music)
        return [*(item for item in single if item is not None), *(self.pictures or [])]

    def estimated_input_tokens(self) -> int:
        return 0

    def estimated_output_tokens(self, default: int) -> int:
        return 0


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Caption(_Part):
    """A sentence and when it is heard, in seconds from the start of its scene's narration."""

    text: Annotated[str, Field(max_length=2_000)]
    start: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    end: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Scene(_Part):
    """A picture, what is said over it, and the captions."""

    picture: MediaReference | None = None
    """Without one, the scene is a coloured card with its title."""
    narration: MediaReference | None = None
    seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None
    """Needed without a narration; beside one, the least length: a scene is never shorter than its
    narration and a breath."""
    title: Annotated[str, Field(max_length=200)] | None = None
    """Over a picture it leaves after some seconds; a card shows it large, to its end."""
    subtitle: Annotated[str, Field(max_length=200)] | None = None
    """Below the title of a card."""
    captions: Annotated[list[Caption], Field(max_length=1_000)] = []
    motion: Motion = "auto"
    """How the camera moves over the picture; ``auto`` gives neighbours different moves."""

    @model_validator(mode="after")
    def _has_a_length(self) -> Scene:
        if self.narration is None and self.seconds is None:
            raise ValueError("a scene without a narration needs 'seconds'")
        return self


class CompositionSpec(InferenceSpec):
    """A video put together from parts that exist already; the last step of a composed video, and
    open to everybody."""

    scenes: Annotated[list[Scene], Field(min_length=1, max_length=MAX_SCENES)]
    style: Style = "slides"
    size: Size = "auto"
    fps: Annotated[int, Field(ge=1, le=60)] | None = None
    output_format: VideoFormat = "mp4"
    transition: Transition = "crossfade"
    lower_third: Annotated[str, Field(max_length=200)] | None = None
    lower_third_detail: Annotated[str, Field(max_length=200)] | None = None
    logo: MediaReference | None = None
    music: MediaReference | None = None

    def media(self) -> Sequence[MediaReference]:
        parts = [part for scene in self.scenes for part in (scene.picture, scene.narration)]
        return [item for item in (*parts, self.logo, self.music) if item is not None]

    def estimated_input_tokens(self) -> int:
        return 0

    def estimated_output_tokens(self, default: int) -> int:
        return 0
