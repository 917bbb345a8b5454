"""The story of one composition: read, lay out, draw and encode frame by frame, describe."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidRequest
from shared.specs import CompositionSpec, parse_body_json
from shared.specs.images import sides
from worker.engines.composing.fonts import Fonts
from worker.engines.composing.inputs import Inputs
from worker.engines.composing.layout import Layout
from worker.engines.composing.production import Production
from worker.engines.composing.settings import ComposerSettings
from worker.engines.composing.soundtrack import levelled
from worker.engines.composing.timeline import BREATH_SECONDS, Timeline
from worker.engines.encoding import SAMPLE_RATE, check_sides
from worker.engines.footage import video_body
from worker.engines.one_by_one import Advance, Made, Work
from worker.engines.protocol import Load, Row

LEAST_SIDE = 64


def frame_size(spec: CompositionSpec, settings: ComposerSettings) -> tuple[int, int]:
    """(width, height). Raises InvalidRequest for one that can't be encoded or is too large."""
    size = sides(spec.size) or sides(settings.default_size)
    assert size is not None  # noqa: S101 - the settings have a pattern
    if size[0] % 2 or size[1] % 2:
        raise InvalidRequest("size: both sides must be even", param="size")
    if min(size) < LEAST_SIDE:
        raise InvalidRequest(f"size: {LEAST_SIDE} pixels a side are the least", param="size")
    check_sides(size)
    if size[0] * size[1] > settings.max_pixels:
        most = f"{settings.max_pixels} pixels a frame are the most"
        raise InvalidRequest(f"size: {most}", param="size")
    return size


@dataclass(frozen=True, slots=True)
class Composer:
    """Makes videos for one model of the catalog."""

    load: Load
    settings: ComposerSettings

    def begin(self, row: Row) -> Work:
        """The work on a row. Raises PressrunError for a body that can't be served."""
        spec = parse_body_json(row.endpoint, row.body)
        if not isinstance(spec, CompositionSpec):
            raise InvalidRequest(f"a composer's engine does not serve {row.endpoint}")
        return self._compose(spec, row, frame_size(spec, self.settings))

    def _compose(self, spec: CompositionSpec, row: Row, size: tuple[int, int]) -> Work:
        """Raises InvalidRequest, naming the member, for inputs that can't be used."""
        settings, spool = self.settings, Path(self.load.spool)
        inputs = Inputs(row.inputs, max_seconds=settings.max_seconds)
        fps = spec.fps or settings.default_fps
        voices = yield from _read_voices(spec, inputs, settings.max_seconds)
        yield from _look_at_pictures(spec, inputs)
        timeline = Timeline(_lengths(spec, voices), fps, changes=_changes(spec))
        production = Production(
            spec, inputs, Layout(*size), Fonts(settings.fonts), timeline=timeline, voices=voices
        )
        yield Advance(0, timeline.frame_n, "preparing")
        yield from production.prepare()
        footage = production.footage(spool, row.id, settings.threads)
        finished = False
        try:
            yield from production.render(footage)
            files = footage.finish(production.provenance(self.load.model))
            files += production.captions(spool, row.id, files[0])
            finished = True
        finally:
            if not finished:
                footage.discard()
        body = video_body(
            self.load.model,
            self.load.public_url,
            files,
            fps=fps,
            warnings=production.warnings(),
        )
        return Made(body, files)


def _read_voices(
    spec: CompositionSpec, inputs: Inputs, max_seconds: float
) -> Generator[Advance, None, list[NDArray[np.float32] | None]]:
    """Each scene's narration; the whole may not be longer than ``max_seconds``."""
    voices: list[NDArray[np.float32] | None] = []
    for number, scene in enumerate(spec.scenes):
        if scene.narration is None:
            voices.append(None)
        else:
            param = f"scenes[{number}].narration"
            voices.append(levelled(inputs.voice(scene.narration, param)))
        if sum(_lengths(spec, voices)) > max_seconds:
            message = f"the video would be longer than {max_seconds:g} seconds"
            raise InvalidRequest(message, param="scenes")
        yield Advance(0, 0, "reading")
    return voices


def _look_at_pictures(spec: CompositionSpec, inputs: Inputs) -> Generator[Advance, None, None]:
    """Refuses a bad picture before anything is drawn."""
    looked: set[str] = set()
    for number, scene in enumerate(spec.scenes):
        given = scene.picture
        if given is not None and (given.image_url or given.name) not in looked:
            looked.add(given.image_url or given.name)
            inputs.picture(given, f"scenes[{number}].picture")
            yield Advance(0, 0, "reading")


def _lengths(spec: CompositionSpec, voices: Sequence[NDArray[np.float32] | None]) -> list[float]:
    """Seconds of the scenes whose voices are known."""
    return [
        max(scene.seconds or 0.0, len(voice) / SAMPLE_RATE + BREATH_SECONDS)
        if voice is not None
        else scene.seconds or 0.0
        for scene, voice in zip(spec.scenes, voices, strict=False)
    ]


def _changes(spec: CompositionSpec) -> list[bool]:
    """Whether a transition leads to each scene but the first: not where the same presenter just
    goes on, and never for a cut."""
    scenes = spec.scenes
    return [
        spec.transition != "cut"
        and not (
            spec.style == "presenter"
            and (before.picture, before.title) == (after.picture, after.title)
        )
        for before, after in pairwise(scenes)
    ]
