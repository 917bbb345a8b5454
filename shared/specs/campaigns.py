"""``/v1/campaigns``: a brief that becomes texts, pictures, a voice-over and a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.specs.common import InferenceSpec
from shared.specs.images import Size
from shared.specs.media import MediaReference

MAX_LANGUAGES = 16
MAX_SIZES = 12
MAX_VARIANTS = 16
MAX_AUDIENCES = 1_000
MAX_STEPS = 4_000
"""Of one campaign: a brief that would need more is refused, naming what multiplies."""

ShortText = Annotated[str, Field(min_length=1, max_length=2_000)]
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
Output = Literal["copy", "pictures", "voice_over", "video"]


class Audience(BaseModel):
    """One row of the table of audiences."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    description: Annotated[str, Field(max_length=2_000)] = ""


class CampaignSpec(InferenceSpec):
    """The brief. ``model`` writes the texts; the other models default to the tenant's first one
    that serves the endpoint."""

    product: ShortText
    description: Annotated[str, Field(max_length=8_000)] = ""
    audience: Annotated[str, Field(max_length=2_000)] = ""
    audiences: Annotated[list[Audience], Field(max_length=MAX_AUDIENCES)] = []
    """Personalised: copy and pictures for each; what is common is made once."""
    tone: Annotated[str, Field(max_length=200)] = "friendly"
    languages: Annotated[list[Language], Field(min_length=1, max_length=MAX_LANGUAGES)] = ["en"]
    sizes: Annotated[list[Size], Field(min_length=1, max_length=MAX_SIZES)] = ["auto"]
    variants: Annotated[int, Field(ge=1, le=MAX_VARIANTS)] = 1
    outputs: Annotated[list[Output], Field(min_length=1, max_length=4)] = [
        "copy", "pictures", "voice_over", "video",
    ]  # fmt: skip
    image_model: Annotated[str, Field(max_length=256)] | None = None
    speech_model: Annotated[str, Field(max_length=256)] | None = None
    video_model: Annotated[str, Field(max_length=256)] | None = None
    voice: Annotated[str, Field(max_length=128)] = "default"
    logo: MediaReference | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data

    @model_validator(mode="after")
    def _no_repeats(self) -> CampaignSpec:
        for name in ("languages", "sizes", "outputs"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one of its items twice")
        names = [audience.name for audience in self.audiences]
        if len(set(names)) < len(names):
            raise ValueError("audiences names one of its items twice")
        return self

    def media(self) -> Sequence[MediaReference]:
        return () if self.logo is None else (self.logo,)

    def estimated_input_tokens(self) -> int:
        return 0

    def estimated_output_tokens(self, default: int) -> int:
        return 0
