"""The pipeline calls for a microbatch, a denoising step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
import torch

from worker.engines.images.blending import Blend
from worker.engines.images.lanes import Lane, Lanes
from worker.engines.images.lockstep import Finished, Pause
from worker.engines.images.pipelines import Abilities
from worker.engines.images.previews import decode_latents
from worker.engines.images.rows import WantedImage

if TYPE_CHECKING:
    from PIL.Image import Image

_BLANK = " "
"""A negative prompt that says nothing, for models whose guidance needs one."""

log = structlog.get_logger()

OnPreview = Callable[[WantedImage, "Image"], None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came out of a call, in the order of its images."""

    pictures: list[Image]
    withheld: list[bool]


class Microbatch:
    """Images of one group on their way through a pipeline, in parts that go side by side."""

    def __init__(
        self,
        pipeline: Any,
        able: Abilities,
        images: Sequence[WantedImage],
        lanes: Lanes,
        on_preview: OnPreview,
    ) -> None:
        self.images = list(images)
        self._parts = [
            Part(lane, able, part, on_preview)
            for lane, part in lanes.share_out(pipeline, self.images)
        ]

    @property
    def wanted(self) -> bool:
        """Whether any of its rows still waits for it."""
        return any(not image.row.gone for image in self.images)

    def advance(self) -> Drawn | None:
        """Does one denoising step; the last one decodes the images too and returns them.

        Raises what the pipeline raises. A pipeline that can't be held does all in one go.
        """
        running = [part for part in self._parts if part.drawn is None]
        for part in running:
            part.let_go()
        errors = [error for part in running if (error := part.wait()) is not None]
        if errors:
            raise errors[0]
        drawn = [part.drawn for part in self._parts if part.drawn is not None]
        if len(drawn) < len(self._parts):
            return None
        return Drawn(
            [picture for each in drawn for picture in each.pictures],
            [flag for each in drawn for flag in each.withheld],
        )

    def abandon(self) -> None:
        """Ends the calls where they are held, and tidies up after one that raised."""
        for part in self._parts:
            part.abandon()


class Part:
    """One call of a lane's pipeline."""

    def __init__(
        self, lane: Lane, able: Abilities, images: Sequence[WantedImage], on_preview: OnPreview
    ) -> None:
        self.drawn: Drawn | None = None
        """Once the call has ended."""
        self._images = images
        self._pipeline = lane.pipeline
        self._threads = lane.threads
        self._able = able
        self._lockstep = lane.lockstep
        self._on_preview = on_preview
        masked = images[0].row.mask is not None
        self._blend = (
            Blend(lane.pipeline, images) if masked and "mask_image" not in able.parameters else None
        )
        self._lockstep.begin(self._call)

    def let_go(self) -> None:
        """Begins a denoising step, which ``wait`` waits for."""
        self._lockstep.let_go()

    def wait(self) -> Exception | None:
        """Returns what the pipeline raised: other parts have to be waited for too."""
        try:
            came = self._lockstep.wait()
        except Exception as error:
            return error
        if isinstance(came, Finished):
            self.drawn = came.value
        return None

    def abandon(self) -> None:
        self._lockstep.abandon()
        self._pipeline.maybe_free_model_hooks()

    def _call(self, pause: Pause) -> Drawn:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)  # of this thread
        arguments = call_arguments(self._images, self._able)
        if self._able.steps_visibly:
            arguments["callback_on_step_end"] = self._on_step_end(pause)
        with torch.no_grad():
            out = self._pipeline(**arguments)
        flags = getattr(out, "nsfw_content_detected", None) or [False] * len(self._images)
        return Drawn(list(out.images), [bool(flag) for flag in flags])

    def _on_step_end(self, pause: Pause) -> Callable[[Any, int, Any, dict[str, Any]], Any]:
        def on_step_end(
            pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            total = int(getattr(pipeline, "num_timesteps", 0) or self._images[0].group.steps)
            if self._blend is not None:
                tensors["latents"] = self._blend(timestep, tensors["latents"])
            for image in self._images:
                image.steps_done, image.row.steps = step + 1, total
            self._preview(step + 1, total, tensors.get("latents"))
            pause()
            return tensors

        return on_step_end

    def _preview(self, step: int, total: int, latents: Any) -> None:
        due = {
            place: image
            for place, image in enumerate(self._images)
            if image.place == 0 and image.row.preview_due(step, total)
        }
        if not due or latents is None:
            return
        try:
            pictures = decode_latents(self._pipeline, latents[list(due)], self._images[0].group)
        except (AttributeError, TypeError, ValueError) as error:
            # Not every pipeline keeps its latents in a known form; the image itself will come.
            log.warning(
                "no_preview", kind=type(self._pipeline).__name__, error=type(error).__name__
            )
            return
        for image, picture in zip(due.values(), pictures, strict=True):
            self._on_preview(image, picture)


def call_arguments(images: Sequence[WantedImage], able: Abilities) -> dict[str, Any]:
    """What the pipeline is called with for images of one group."""
    group, rows = images[0].group, [image.row for image in images]
    arguments: dict[str, Any] = {
        "prompt": [row.prompt for row in rows],
        "num_inference_steps": group.steps,
        # On the CPU whatever the device: the same seed gives the same image everywhere.
        "generator": [torch.Generator("cpu").manual_seed(image.seed) for image in images],
        "output_type": "pil",
    }
    if "height" in able.parameters:
        arguments |= {"height": group.height, "width": group.width}
    if able.guidance_name is not None and group.guidance is not None:
        arguments[able.guidance_name] = group.guidance
    if group.negative:
        blank = _BLANK if able.needs_negative else ""
        arguments["negative_prompt"] = [row.spec.negative_prompt or blank for row in rows]
    if rows[0].source is not None:
        arguments["image"] = [row.source for row in rows]
    if rows[0].mask is not None and "mask_image" in able.parameters:
        arguments["mask_image"] = [row.mask for row in rows]
    if group.strength is not None:
        arguments["strength"] = group.strength
    return arguments
