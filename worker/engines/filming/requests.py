"""From a body to a take: what is to be filmed, checked against the model and its caps."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.errors import InvalidRequest, UnsupportedParameter
from shared.specs import VideoSpec, parse_body_json
from shared.specs.images import sides
from worker.engines.encoding import check_sides
from worker.engines.filming.families import whole_frames
from worker.engines.filming.loading import LoadedVideoModel, parameters
from worker.engines.filming.settings import VideoSettings
from worker.engines.images.sources import like, read_picture
from worker.engines.pictures import fit
from worker.engines.protocol import Row

if TYPE_CHECKING:
    from PIL.Image import Image

COMPOSED_MEMBERS = (
    "style", "script", "pictures", "portrait", "title", "subtitle", "voice", "captions",
    "transition", "logo", "music", "image_model", "speech_model",
)  # fmt: skip
"""Of ``VideoSpec``: what only a composer understands."""


@dataclass(frozen=True, slots=True)
class Take:
    """One video to be generated; every choice is made."""

    pipeline: Any
    arguments: dict[str, Any]
    """Of the pipeline's call, but for the generator and the callback."""
    container: Any
    size: tuple[int, int]
    """(width, height)."""
    frame_n: int
    fps: int
    steps: int
    seed: int
    prompt: str


class Offer:
    """What one model films."""

    def __init__(self, loaded: LoadedVideoModel, settings: VideoSettings) -> None:
        self._loaded, self._settings = loaded, settings
        self._multiple = settings.size_multiple or loaded.family.side_multiple

    def take(self, row: Row) -> Take:
        """Raises PressrunError, naming the member, for what can't be filmed here."""
        spec = parse_body_json(row.endpoint, row.body)
        if not isinstance(spec, VideoSpec):
            raise InvalidRequest(f"the video engine does not serve {row.endpoint}")
        for name in COMPOSED_MEMBERS:
            if name in spec.model_fields_set:
                raise UnsupportedParameter(
                    f"'{name}' is for composed videos, and '{spec.model}' generates", param=name
                )
        pipeline = self._pipeline(spec)
        picture = self._picture(spec, row)
        size = self._size(spec, picture)
        fps = spec.fps or self._settings.default_fps or self._loaded.family.fps
        steps = self._steps(spec, pipeline)
        frame_n = self._frames(spec, fps)
        return Take(
            pipeline=pipeline,
            arguments=self._arguments(spec, pipeline, picture, size)
            | {"num_frames": frame_n, "num_inference_steps": steps}
            | ({"frame_rate": fps} if "frame_rate" in parameters(pipeline) else {}),
            container=spec.output_format,
            size=size,
            frame_n=frame_n,
            fps=fps,
            steps=steps,
            seed=secrets.randbits(63) if spec.seed is None else spec.seed,
            prompt=spec.prompt,
        )

    def _pipeline(self, spec: VideoSpec) -> Any:
        if spec.input_reference is None:
            if self._loaded.text is None:
                raise InvalidRequest(
                    "this model continues a picture: give one", param="input_reference"
                )
            return self._loaded.text
        if self._loaded.image is None:
            raise UnsupportedParameter("this model starts from text alone", param="input_reference")
        return self._loaded.image

    def _picture(self, spec: VideoSpec, row: Row) -> Image | None:
        if spec.input_reference is None:
            return None
        from PIL import Image

        picture = read_picture(spec.input_reference, row, "input_reference")
        if picture.mode != "RGBA":
            return picture
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")

    def _size(self, spec: VideoSpec, picture: Image | None) -> tuple[int, int]:
        own = sides(self._settings.default_size or "auto") or self._loaded.family.size
        size = sides(spec.size)
        if size is None and picture is not None:
            size = like(picture.size, own, multiple=self._multiple, max_side=4096)
        size = size or own
        if size[0] % self._multiple or size[1] % self._multiple:
            raise InvalidRequest(
                f"both sides must be multiples of {self._multiple} for this model", param="size"
            )
        if size[0] * size[1] > self._settings.max_pixels:
            message = f"a frame has {self._settings.max_pixels} pixels at most for this model"
            raise InvalidRequest(message, param="size")
        check_sides(size)
        return size

    def _frames(self, spec: VideoSpec, fps: int) -> int:
        settings, family = self._settings, self._loaded.family
        if spec.seconds is None:
            seconds = settings.default_seconds
            wanted = family.frames if seconds is None else seconds * fps
            return whole_frames(
                min(wanted, settings.max_frames, settings.max_seconds * fps), family
            )
        seconds = float(spec.seconds)
        if seconds > settings.max_seconds:
            message = f"seconds {spec.seconds} is over this model's cap of {settings.max_seconds:g}"
            raise InvalidRequest(message, param="seconds")
        frame_n = whole_frames(seconds * fps, family)
        if frame_n > settings.max_frames:
            message = (
                f"{spec.seconds} seconds at {fps} frames a second are {frame_n} frames, "
                f"this model's cap is {settings.max_frames}"
            )
            raise InvalidRequest(message, param="seconds")
        return frame_n

    def _steps(self, spec: VideoSpec, pipeline: Any) -> int:
        most = self._settings.max_steps
        if spec.steps is None:
            own = self._settings.default_steps or parameters(pipeline)["num_inference_steps"]
            return min(most, int(own))
        if spec.steps > most:
            message = f"steps {spec.steps} is over this model's cap of {most}"
            raise InvalidRequest(message, param="steps")
        return spec.steps

    def _arguments(
        self, spec: VideoSpec, pipeline: Any, picture: Image | None, size: tuple[int, int]
    ) -> dict[str, Any]:
        known = parameters(pipeline)
        given: dict[str, Any] = {"prompt": spec.prompt, "width": size[0], "height": size[1]}
        if picture is not None:
            given["image"] = fit(picture, size)
        guidance = self._settings.default_guidance if spec.guidance is None else spec.guidance
        if guidance is not None:
            given["guidance_scale"] = guidance
        if spec.negative_prompt is not None:
            given["negative_prompt"] = spec.negative_prompt
        for name in given:
            if name not in known:
                blamed = "guidance" if name == "guidance_scale" else name
                raise UnsupportedParameter(f"this model takes no '{blamed}'", param=blamed)
        return given
