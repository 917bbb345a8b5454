"""From a row's body to what the pipelines are to do, within the model's caps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import InvalidRequest, UnsupportedEndpoint, UnsupportedParameter
from shared.specs import parse_body_json
from shared.specs.images import (
    ImageEditSpec,
    ImageGenerationSpec,
    ImageSpec,
    ImageVariationSpec,
    sides,
)
from worker.engines.images.batches import Group
from worker.engines.images.pipelines import Abilities, Task
from worker.engines.images.prompts import PromptMeter
from worker.engines.images.rows import ImageRow, drawn_seed
from worker.engines.images.settings import ImageSettings
from worker.engines.images.sources import edit_mask, fitted, like, read_picture
from worker.engines.protocol import Row

if TYPE_CHECKING:
    from PIL.Image import Image

_STEPS_BY_QUALITY = {"low": 0.5, "high": 1.5, "hd": 1.5}
_NO_GUIDANCE = 1.0


@dataclass(frozen=True, slots=True)
class Offer:
    """What the model serves, and up to what."""

    abilities: dict[Task, Abilities]
    settings: ImageSettings
    own_size: tuple[int, int]
    """(width, height) of ``auto``."""
    size_multiple: int
    adapters: list[str]
    meter: PromptMeter

    def read(self, shard: int, epoch: int, row: Row) -> ImageRow:
        """Raises PressrunError, with ``param``, for a row that can't be run."""
        spec = parse_body_json(row.endpoint, row.body)
        if not isinstance(spec, ImageSpec):
            raise InvalidRequest(f"the image engine does not serve {row.endpoint}")
        if spec.n > self.settings.max_n:
            raise _over("n", spec.n, self.settings.max_n)
        image, mask = self._pictures(spec, row)
        task = _task(spec, mask)
        if task not in self.abilities:
            raise UnsupportedEndpoint(f"this model cannot do {row.endpoint} ({task})")
        size = self._size(spec, image)
        if image is not None:
            image, mask = fitted(image, mask, size)
        prompt = getattr(spec, "prompt", "")
        return ImageRow(
            shard,
            epoch,
            row.index,
            row.id,
            spec,
            prompt,
            self._group(spec, task, size, row.adapter),
            seed=drawn_seed() if spec.seed is None else spec.seed,
            input_tokens=sum(map(self.meter.count, (prompt, spec.negative_prompt or ""))),
            warnings=self._warnings(spec, prompt),
            source=image,
            mask=mask,
            adapter_name=row.adapter_name,
        )

    def _pictures(self, spec: ImageSpec, row: Row) -> tuple[Image | None, Image | None]:
        if isinstance(spec, ImageVariationSpec):
            return read_picture(spec.image, row, "image"), None
        if not isinstance(spec, ImageEditSpec):
            return None, None
        image = read_picture(spec.image, row, "image")
        mask = None if spec.mask is None else read_picture(spec.mask, row, "mask")
        if spec.mask is None and Task.INPAINTING not in self.abilities:
            return image, None
        return image, edit_mask(image, mask)

    def _size(self, spec: ImageSpec, image: Image | None) -> tuple[int, int]:
        size, settings = sides(spec.size), self.settings
        if size is None:
            if image is None:
                return self.own_size
            return like(
                image.size,
                self.own_size,
                multiple=self.size_multiple,
                max_side=settings.max_side,
            )
        if max(size) > settings.max_side:
            raise _over("size", spec.size, f"{settings.max_side} pixels a side")
        if size[0] * size[1] > settings.max_pixels:
            raise _over("size", spec.size, f"{settings.max_pixels} pixels")
        if any(side % self.size_multiple for side in size):
            raise InvalidRequest(
                f"both sides must be multiples of {self.size_multiple} for this model",
                param="size",
            )
        return size

    def _group(self, spec: ImageSpec, task: Task, size: tuple[int, int], tuned: str) -> Group:
        able = self.abilities[task]
        if spec.negative_prompt is not None and not able.takes_negative:
            raise UnsupportedParameter(
                "this model takes no negative prompt", param="negative_prompt"
            )
        if spec.guidance is not None and able.guidance_name is None:
            raise UnsupportedParameter("this model takes no guidance", param="guidance")
        steps = self._steps(spec, able)
        return Group(
            task=task,
            width=size[0],
            height=size[1],
            steps=steps,
            guidance=self._guidance(spec, able),
            negative=spec.negative_prompt is not None or able.needs_negative,
            strength=_strength(spec, able, steps),
            adapter=self._adapter(spec),
            tuned=tuned,
        )

    def _steps(self, spec: ImageSpec, able: Abilities) -> int:
        most = self.settings.max_steps
        if spec.steps is None:
            default = self.settings.default_steps or able.default_steps
            return min(most, max(1, round(default * _STEPS_BY_QUALITY.get(spec.quality, 1))))
        if spec.steps > most:
            raise _over("steps", spec.steps, most)
        return spec.steps

    def _guidance(self, spec: ImageSpec, able: Abilities) -> float | None:
        if able.guidance_name is None or spec.guidance is not None:
            return spec.guidance
        own = self.settings.default_guidance
        return able.default_guidance if own is None else own

    def _adapter(self, spec: ImageSpec) -> tuple[str, float] | None:
        if spec.adapter is None:
            return None
        if spec.adapter not in self.adapters:
            offered = ", ".join(self.adapters) or "none"
            raise InvalidRequest(
                f"no adapter '{spec.adapter}'; this model offers {offered}", param="adapter"
            )
        return spec.adapter, spec.adapter_weight

    def _warnings(self, spec: ImageSpec, prompt: str) -> list[str]:
        found = [
            self.meter.warning(prompt, "prompt"),
            self.meter.warning(spec.negative_prompt or "", "negative prompt"),
        ]
        if spec.negative_prompt and spec.guidance is not None and spec.guidance <= _NO_GUIDANCE:
            found.append("a negative prompt has no effect at a guidance of 1 or less")
        return [warning for warning in found if warning is not None]


def default_size(own: tuple[int, int], settings: ImageSettings) -> tuple[int, int]:
    """The catalog's size, else the model's ``own``, halved until the caps allow it."""
    width, height = sides(settings.default_size or "auto") or own
    while max(width, height) > settings.max_side or width * height > settings.max_pixels:
        width, height = width // 2, height // 2
    return width, height


def _task(spec: ImageSpec, mask: Image | None) -> Task:
    if isinstance(spec, ImageGenerationSpec):
        return Task.TEXT_TO_IMAGE
    return Task.IMAGE_TO_IMAGE if mask is None else Task.INPAINTING


def _strength(spec: ImageSpec, able: Abilities, steps: int) -> float | None:
    if not isinstance(spec, ImageEditSpec | ImageVariationSpec):
        return None
    if not able.takes_strength:
        if "strength" in spec.model_fields_set:
            raise UnsupportedParameter("this model takes no strength", param="strength")
        return None
    if int(steps * spec.strength) < 1:
        raise InvalidRequest(
            f"a strength of {spec.strength} leaves none of the {steps} steps to do",
            param="strength",
        )
    return spec.strength


def _over(param: str, given: object, cap: object) -> InvalidRequest:
    return InvalidRequest(f"{param} {given} is over this model's cap of {cap}", param=param)
