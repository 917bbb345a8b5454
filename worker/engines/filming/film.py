"""The story of one generated video: denoise step by step, then encode some frames at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from PIL.Image import Image

from worker.engines.filming.loading import LoadedVideoModel
from worker.engines.filming.requests import Offer, Take
from worker.engines.filming.settings import VideoSettings
from worker.engines.footage import Footage, video_body
from worker.engines.images.loading import place
from worker.engines.images.lockstep import Finished, LockStep, Pause
from worker.engines.memory import give_back, is_out_of_memory
from worker.engines.one_by_one import Advance, Made, RowFailed, Work
from worker.engines.protocol import Load, OutputFile, Row

log = structlog.get_logger()

Filming = Generator[Advance, None, Sequence[Image]]


class Filmer:
    """Makes videos with one model."""

    def __init__(self, load: Load, loaded: LoadedVideoModel, settings: VideoSettings) -> None:
        self._load, self._loaded, self._settings = load, loaded, settings
        self._offer = Offer(loaded, settings)
        self._lockstep: LockStep[Sequence[Image]] = LockStep("diffusion")
        self._hooked: Any = loaded.base

    def begin(self, row: Row) -> Work:
        """The work on a row. Raises PressrunError for a body that can't be served."""
        return self._film(self._offer.take(row), row.id)

    def _film(self, take: Take, row: str) -> Work:
        pictures = yield from self._generate(take)
        files = yield from self._encode(take, row, pictures)
        body = video_body(
            self._load.model,
            self._load.public_url,
            files,
            fps=take.fps,
            seed=take.seed,
            steps=take.steps,
        )
        return Made(body, files)

    def _generate(self, take: Take) -> Filming:
        """Every frame. One ``next`` is one denoising step; the last decodes the frames too."""
        if self._loaded.offload != "none" and take.pipeline is not self._hooked:
            place(take.pipeline, self._loaded.offload, self._loaded.device)
            self._hooked = take.pipeline
        done = 0
        self._lockstep.begin(lambda pause: self._call(take, pause))
        try:
            while True:
                came = self._advance()
                if came is not None:
                    return came.value
                done += 1
                yield Advance(done, take.steps, "generating")
        finally:
            self._lockstep.abandon()
            take.pipeline.maybe_free_model_hooks()

    def _advance(self) -> Finished[Sequence[Image]] | None:
        """Raises RowFailed where the process can go on after what the pipeline raised."""
        try:
            return self._lockstep.advance()
        except Exception as error:
            short = is_out_of_memory(error)
            # After a RuntimeError on a GPU nobody knows whether the device still works.
            if not short and self._loaded.device.type != "cpu" and isinstance(error, RuntimeError):
                raise
            name, said = type(error).__name__, str(error)
        give_back(self._loaded.device)
        log.warning("video_failed", error=name)
        if short:
            message = "this video does not fit the memory of this machine"
            raise RowFailed("out_of_memory", message)
        message = f"the model cannot run this combination: {name}: {said}"
        raise RowFailed("generation_failed", message[:500])

    def _call(self, take: Take, pause: Pause) -> Sequence[Image]:
        def held(pipeline: Any, step: int, time: Any, kept: dict[str, Any]) -> dict[str, Any]:
            pause()
            return kept

        # The noise is drawn on the CPU, so that a seed means the same on every device.
        generator = torch.Generator("cpu").manual_seed(take.seed)
        with torch.inference_mode():
            made = take.pipeline(
                **take.arguments,
                generator=generator,
                output_type="pil",
                callback_on_step_end=held,
            )
        frames: Sequence[Image] = made.frames[0]
        return frames

    def _encode(
        self, take: Take, row: str, pictures: Sequence[Image]
    ) -> Generator[Advance, None, list[OutputFile]]:
        footage = Footage(
            Path(self._load.spool),
            row,
            take.container,
            size=pictures[0].size,
            fps=take.fps,
            frame_n=len(pictures),
            threads=self._settings.encoder_threads,
        )
        finished = False
        try:
            for picture in pictures:
                footage.add(picture.convert("RGB"))
                yield Advance(take.steps, take.steps, "encoding")
            files = footage.finish(self._provenance(take))
            finished = True
            return files
        finally:
            if not finished:
                footage.discard()

    def _provenance(self, take: Take) -> dict[str, Any]:
        return {
            "model": self._load.model,
            "fingerprint": self._loaded.fingerprint,
            "pipeline": type(take.pipeline).__name__,
            "scheduler": type(take.pipeline.scheduler).__name__,
            "prompt": take.prompt,
            "negative_prompt": take.arguments.get("negative_prompt"),
            "guidance": take.arguments.get("guidance_scale"),
            "seed": take.seed,
            "steps": take.steps,
            "frames": take.frame_n,
        }
