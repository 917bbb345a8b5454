"""The frames, the sound and the captions of one composition."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.specs import CompositionSpec
from worker.engines.composing.cues import Cue, Shown, cues_of, web_vtt
from worker.engines.composing.drawing import Layer
from worker.engines.composing.fonts import Fonts
from worker.engines.composing.inputs import Inputs
from worker.engines.composing.layout import Layout
from worker.engines.composing.loudness import levels
from worker.engines.composing.overlays import LowerThird, caption, caption_break, logo_layer
from worker.engines.composing.scenery import accent
from worker.engines.composing.scenes import Scenes
from worker.engines.composing.soundtrack import Soundtrack, Voice
from worker.engines.composing.timeline import Moment, Timeline
from worker.engines.composing.transitions import mixed
from worker.engines.encoding import SAMPLE_RATE
from worker.engines.footage import Footage
from worker.engines.one_by_one import Advance
from worker.engines.protocol import OutputFile
from worker.engines.sounds.encoding import file_of, fresh_path


class Production:
    """Draws and sounds one video, of which everything is known that decides its length."""

    def __init__(
        self,
        spec: CompositionSpec,
        inputs: Inputs,
        layout: Layout,
        fonts: Fonts,
        *,
        timeline: Timeline,
        voices: Sequence[NDArray[np.float32] | None],
    ) -> None:
        self._spec, self._inputs, self._layout = spec, inputs, layout
        self._fonts, self._timeline, self._voices = fonts, timeline, voices
        self._cues: list[Cue] = []
        self._shown = Shown(self._cues)
        self._caption: tuple[Cue, Layer] | None = None
        self._logo = self._read_logo()
        self._name = self._lower_third()
        self._scenes = Scenes(spec, inputs, layout, fonts, levels=self._levels(), fps=timeline.fps)

    def footage(self, spool: Path, row: str, threads: int) -> Footage:
        return Footage(
            spool,
            row,
            self._spec.output_format,
            size=self._layout.size,
            fps=self._timeline.fps,
            frame_n=self._timeline.frame_n,
            audio=self._audible,
            threads=threads,
        )

    @property
    def _audible(self) -> bool:
        return self._spec.music is not None or any(v is not None for v in self._voices)

    def prepare(self) -> Generator[Advance, None, None]:
        """Cuts the captions into cues, one text at a time: a script may be long, and lines are
        found by measuring letters. Comes before ``render``."""
        cut, fps = caption_break(self._layout, self._fonts), self._timeline.fps
        lines: dict[str, Sequence[str]] = {}
        for scene in self._spec.scenes:
            for given in scene.captions:
                if given.text not in lines:
                    lines[given.text] = cut(given.text)
                    yield Advance(0, self._timeline.frame_n, "preparing")
        self._cues = [
            cue
            for scene, shot in zip(self._spec.scenes, self._timeline.shots, strict=True)
            for cue in cues_of(scene.captions, shot.start / fps, shot.end / fps, lines.__getitem__)
        ]
        self._shown = Shown(self._cues)

    def render(self, footage: Footage) -> Generator[Advance, None, None]:
        """Draws and encodes every frame, and its sound, in order."""
        sound = self._soundtrack() if self._audible else None
        frame_n, fps = self._timeline.frame_n, self._timeline.fps
        for moment in self._timeline.moments():
            footage.add(self._frame(moment))
            if sound is not None:
                footage.add_sound(sound.read((moment.frame + 1) * SAMPLE_RATE // fps))
            yield Advance(moment.frame + 1, frame_n, "rendering")

    def captions(self, spool: Path, row: str, video: OutputFile) -> list[OutputFile]:
        """The WebVTT file, when there are captions."""
        if not self._cues:
            return []
        path = fresh_path(spool, ".vtt")
        path.write_text(web_vtt(self._cues), encoding="utf-8")
        name, media_type = "video.captions.vtt", "text/vtt"
        return [
            file_of(
                path, row=row, name=name, role="captions", media_type=media_type, parent=video.id
            )
        ]

    def warnings(self) -> list[str]:
        if not self._fonts.unwritable:
            return []
        letters = " ".join(sorted(self._fonts.unwritable)[:40])
        return [f"left out, since no font here has them: {letters}"]

    def provenance(self, model: str) -> dict[str, Any]:
        """How the video was made; a row may call its ``model`` by an alias."""
        spec = self._spec
        return {
            "engine": "composer",
            "model": model,
            "style": spec.style,
            "transition": spec.transition,
            "scenes": len(spec.scenes),
            "inputs": sorted({item.name for item in spec.media()}),
        }

    def _frame(self, moment: Moment) -> Image.Image:
        self._scenes.close_before(moment.shot)
        picture = self._scenes.view(moment.shot).draw(moment.frame)
        if moment.coming is not None:
            after = self._scenes.view(moment.coming).draw(moment.frame)
            picture = mixed(picture, after, moment.mix, self._spec.transition)
        seconds = (moment.frame + 0.5) / self._timeline.fps
        if self._name is not None:
            self._name.draw(picture, seconds)
        if self._logo is not None:
            self._logo.lay_over(picture)
        cue = self._shown.at(seconds)
        if cue is not None:
            self._caption_layer(cue).lay_over(picture)
        return picture

    def _caption_layer(self, cue: Cue) -> Layer:
        if self._caption is None or self._caption[0] is not cue:
            self._caption = cue, caption(cue, self._layout, self._fonts)
        return self._caption[1]

    def _read_logo(self) -> Layer | None:
        if self._spec.logo is None:
            return None
        return logo_layer(self._inputs.picture(self._spec.logo, "logo"), self._layout)

    def _lower_third(self) -> LowerThird | None:
        """Over the first scene that is no title card, out of the way of its headline."""
        spec = self._spec
        name = self._fonts.writable(spec.lower_third or "")
        if not name:
            return None
        slides = spec.style == "slides"
        pictured = (i for i, scene in enumerate(spec.scenes) if scene.picture or not slides)
        first = next(pictured, 0)
        return LowerThird(
            name,
            self._fonts.writable(spec.lower_third_detail or ""),
            layout=self._layout,
            fonts=self._fonts,
            colour=accent(first),
            at=self._timeline.shots[first].start / self._timeline.fps,
            seconds=self._timeline.seconds,
            high=slides and bool(spec.scenes[first].title),
        )

    def _placed_voices(self) -> list[Voice]:
        fps = self._timeline.fps
        return [
            Voice(voice, shot.start * SAMPLE_RATE // fps)
            for voice, shot in zip(self._voices, self._timeline.shots, strict=True)
            if voice is not None
        ]

    def _soundtrack(self) -> Soundtrack:
        music = None
        if self._spec.music is not None:
            music = self._inputs.music(self._spec.music, "music", self._timeline.seconds)
        length = ceil(self._timeline.seconds * SAMPLE_RATE)
        return Soundtrack(self._placed_voices(), music, length)

    def _levels(self) -> NDArray[np.float32]:
        """The voice's loudness at every frame."""
        all_levels = np.zeros(self._timeline.frame_n, np.float32)
        for voice, shot in zip(self._voices, self._timeline.shots, strict=True):
            if voice is not None:
                fps, frame_n = self._timeline.fps, shot.end - shot.start
                all_levels[shot.start : shot.end] = levels(voice, SAMPLE_RATE, fps, frame_n)
        return all_levels
