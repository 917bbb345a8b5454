"""What each scene of a composition shows, opened when its turn comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.specs import CompositionSpec
from worker.engines.composing.fonts import Fonts
from worker.engines.composing.inputs import Inputs
from worker.engines.composing.layout import Layout
from worker.engines.composing.motion import chosen_motion
from worker.engines.composing.overlays import Box, Headline, TitleCard
from worker.engines.composing.presenter import Presenter, VoiceCard, title_box
from worker.engines.composing.scenery import Still, accent, canvas_of, canvas_size, card
from worker.engines.composing.timeline import Shot


class _Ground(Protocol):
    def draw(self, frame: int, progress: float) -> Image.Image: ...


class _Words(Protocol):
    def draw(self, frame: Image.Image, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class _Plain:
    """A still as a ground."""

    still: Still

    def draw(self, frame: int, progress: float) -> Image.Image:
        return self.still.draw(progress)


@dataclass(frozen=True, slots=True)
class View:
    """One scene, open: its picture and its own words."""

    shot: Shot
    ground: _Ground
    words: _Words | None
    fps: int

    def draw(self, frame: int) -> Image.Image:
        picture = self.ground.draw(frame, self.shot.progress(frame))
        if self.words is not None:
            self.words.draw(picture, (frame - self.shot.start) / self.fps)
        return picture


class Scenes:
    """Opens the scenes of one composition. Only what is on the screen is held."""

    def __init__(
        self,
        spec: CompositionSpec,
        inputs: Inputs,
        layout: Layout,
        fonts: Fonts,
        *,
        levels: NDArray[np.float32],
        fps: int,
    ) -> None:
        """``levels`` is the voice's loudness, one 0..1 a frame of the video."""
        self._spec, self._inputs, self._layout, self._fonts = spec, inputs, layout, fonts
        self._levels, self._fps = levels, fps
        self._open: dict[int, View] = {}

    def view(self, shot: Shot) -> View:
        """The scene of a shot, opened when it isn't yet."""
        if shot.scene not in self._open:
            self._open[shot.scene] = self._opened(shot)
        return self._open[shot.scene]

    def close_before(self, shot: Shot) -> None:
        """Lets go of the scenes that won't be seen again."""
        self._open = {scene: view for scene, view in self._open.items() if scene >= shot.scene}

    def _opened(self, shot: Shot) -> View:
        seconds = (shot.end - shot.start + shot.lead) / self._fps
        if self._spec.style == "presenter":
            ground, words = self._presented(shot)
        else:
            ground, words = self._slide(shot, seconds)
        return View(shot, ground, words, self._fps)

    def _slide(self, shot: Shot, seconds: float) -> tuple[_Ground, _Words | None]:
        scene, layout = self._spec.scenes[shot.scene], self._layout
        motion = chosen_motion(scene.motion, shot.scene)
        if scene.picture is None:
            canvas = card(canvas_size(layout), shot.scene)
            return _Plain(Still(canvas, layout.size, motion, seconds)), self._card_title(shot.scene)
        picture = self._inputs.picture(scene.picture, f"scenes[{shot.scene}].picture")
        canvas, free = canvas_of(picture, layout)
        if free and motion.startswith("pan"):
            motion = "zoom_in"  # a pan would push the frame out of sight
        still = Still(canvas, layout.size, motion, seconds)
        return _Plain(still), self._headline(shot.scene, seconds)

    def _presented(self, shot: Shot) -> tuple[_Ground, _Words | None]:
        scene, layout = self._spec.scenes[shot.scene], self._layout
        if scene.picture is None:
            card_view = VoiceCard(
                layout,
                levels=self._levels,
                fps=self._fps,
                titled=bool(self._written(scene.title)),
            )
            return card_view, self._presenter_title(shot.scene)
        studio = Presenter(
            self._inputs.picture(scene.picture, f"scenes[{shot.scene}].picture"),
            layout,
            levels=self._levels,
            fps=self._fps,
            aside=bool(self._written(scene.title)),
        )
        return studio, self._presenter_title(shot.scene)

    def _written(self, text: str | None) -> str:
        """What a font here has letters for; a title of nothing else is none."""
        return self._fonts.writable(text or "")

    def _headline(self, scene: int, seconds: float) -> _Words | None:
        title = self._written(self._spec.scenes[scene].title)
        if not title:
            return None
        return Headline(title, self._layout, self._fonts, accent(scene), seconds)

    def _card_title(self, scene: int) -> _Words | None:
        layout = self._layout
        return self._title(scene, layout.card_box, layout.card_font, 4 if layout.wide else 6)

    def _presenter_title(self, scene: int) -> _Words | None:
        layout = self._layout
        box = title_box(layout, portrait=self._spec.scenes[scene].picture is not None)
        return self._title(scene, box, round(layout.card_font * 0.72), 5 if layout.wide else 2)

    def _title(self, scene: int, box: Box, size: int, most: int) -> _Words | None:
        given = self._spec.scenes[scene]
        title = self._written(given.title)
        if not title:
            return None
        return TitleCard(
            title,
            self._written(given.subtitle),
            box=box,
            size=size,
            most=most,
            fonts=self._fonts,
            colour=accent(scene),
        )
