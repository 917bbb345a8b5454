"""``/v1/images/generations``, ``/v1/images/edits`` and ``/v1/images/variations``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shared.specs.common import InferenceSpec
from shared.specs.media import MediaReference

MAX_IMAGES = 10
MAX_SIDE = 8_192
MAX_PROMPT_CHARACTERS = 32_000
MAX_PREVIEWS = 3

_SIZE = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})\Z", re.ASCII)

Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
Size = Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$")]


def sides(size: str) -> tuple[int, int] | None:
    """(width, height) in pixels; None for ``auto``, which is the model's own size."""
    found = _SIZE.match(size)
    return (int(found[1]), int(found[2])) if found else None


class ImageSpec(InferenceSpec):
    """What every call for images may set. A model's own limits are checked by its engine."""

    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    size: Size = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Image ``i`` of the row uses ``seed + i``; without one, seeds are drawn and reported."""
    steps: Annotated[int, Field(ge=1, le=500)] | None = None
    guidance: Annotated[float, Field(ge=0, le=50)] | None = None
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] | None = None
    adapter: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """A LoRA adapter that the model's catalog entry offers by this name."""
    adapter_weight: Annotated[float, Field(ge=-4, le=4)] = 1.0
    quality: Literal["auto", "standard", "low", "medium", "high", "hd"] = "auto"
    """``low`` halves the model's default steps, ``high`` and ``hd`` take half as many again."""
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    """Quality of JPEG and WebP, 100 the best."""
    response_format: Literal["url", "b64_json"] = "url"
    partial_images: Annotated[int, Field(ge=0, le=MAX_PREVIEWS)] = 0
    """Previews to make on the way, spread evenly over the steps."""

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data

    @property
    def result_count(self) -> int:
        return self.n

    def estimated_input_tokens(self) -> int:
        return 0

    def estimated_output_tokens(self, default: int) -> int:
        return 0

    def media(self) -> Sequence[MediaReference]:
        return ()


class ImageGenerationSpec(ImageSpec):
    """Images from a text."""

    prompt: Prompt


class _FromImage(ImageSpec):
    image: MediaReference
    strength: Annotated[float, Field(gt=0, le=1)] = 0.8
    """How far from the given image: 1 keeps nothing of it."""

    @model_validator(mode="before")
    @classmethod
    def _one_image(cls, data: Any) -> Any:
        """OpenAI's clients may send a list, under ``image`` or ``images``; one is supported."""
        if not isinstance(data, dict):
            return data
        if "image" in data and "images" in data:
            raise ValueError("give only one of image and images")
        given = data.get("image", data.get("images"))
        if not isinstance(given, list):
            return data
        if len(given) != 1:
            raise ValueError("exactly one image is supported")
        rest = {name: value for name, value in data.items() if name != "images"}
        return rest | {"image": given[0]}


class ImageEditSpec(_FromImage):
    """An image changed after a text; with a mask, only where the mask is transparent."""

    prompt: Prompt
    mask: MediaReference | None = None

    def media(self) -> Sequence[MediaReference]:
        return (self.image,) if self.mask is None else (self.image, self.mask)


class ImageVariationSpec(_FromImage):
    """Other images like the given one."""

    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] = ""

    def media(self) -> Sequence[MediaReference]:
        return (self.image,)
