"""A sampler in the shape of a pipeline, so that the image engine can run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from worker.engines.images.pipelines import Abilities
from worker.engines.samplers.drawing import Sampler
from worker.engines.samplers.manifest import Manifest

if TYPE_CHECKING:
    from PIL.Image import Image


class SamplerPipeline:
    """Called as diffusers' pipelines are, for several pictures at once."""

    scheduler = None

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.num_timesteps = 0

    @property
    def components(self) -> dict[str, nn.Module]:
        return self._sampler.modules

    def maybe_free_model_hooks(self) -> None:
        """Nothing was moved anywhere."""

    def __call__(
        self,
        prompt: Sequence[str],
        *,
        height: int,
        width: int,
        num_inference_steps: int,
        generator: Sequence[torch.Generator],
        output_type: str = "pil",
        guidance_scale: float = 1.0,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], Any] | None = None,
    ) -> SimpleNamespace:
        """``images``: one of ``width`` by ``height`` pixels for each prompt and generator."""

        def on_step(done: int, total: int) -> None:
            self.num_timesteps = total
            if callback_on_step_end is not None:
                callback_on_step_end(self, done - 1, None, {})

        drawn = self._sampler.draw(
            [self._sampler.manifest.class_of(text) for text in prompt],
            generator,
            steps=num_inference_steps,
            guidance=guidance_scale,
            on_step=on_step,
        )
        return SimpleNamespace(images=[scaled(image, width, height) for image in images_of(drawn)])


def sampler_abilities(manifest: Manifest) -> Abilities:
    """What a call of the model's ``SamplerPipeline`` takes."""
    return Abilities(
        parameters=frozenset({"height", "width", "callback_on_step_end"}),
        default_steps=manifest.steps,
        guidance_name="guidance_scale" if manifest.takes_guidance else None,
        default_guidance=manifest.guidance if manifest.takes_guidance else None,
        takes_negative=False,
        needs_negative=False,
    )


def images_of(drawn: Tensor) -> list[Image]:
    """(n, 1 or 3, side, side) of -1..1 as grey or RGB pictures."""
    from PIL import Image

    levels = drawn.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()
    arrays = levels.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array) for array in arrays]


def scaled(image: Image, width: int, height: int) -> Image:
    """Whole multiples show the model's own pixels; other sizes are interpolated."""
    from PIL import Image

    if image.size == (width, height):
        return image
    whole = width % image.width == 0 and height % image.height == 0
    by = Image.Resampling.NEAREST if whole else Image.Resampling.BICUBIC
    return image.resize((width, height), by)
