"""The style ``presenter``: a portrait in a studio, or a card with a voice on it."""

from __future__ import annotations

from math import exp

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from worker.engines.composing.drawing import Colour, Layer, rounded
from worker.engines.composing.faces import Face, find_face
from worker.engines.composing.layout import Layout
from worker.engines.composing.scenery import (
    Still,
    accent,
    blurred,
    canvas_size,
    card,
    cast_shadow,
    flat,
)
from worker.engines.composing.speaking import SpeakingPortrait

_TALL_PANEL = 0.8
_FACE_PART = 0.4
"""How much of the panel's width a face takes at least."""
_BARS = 41
_BAR_STEP_SECONDS = 0.06


def panel_box(layout: Layout, *, aside: bool) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the portrait; ``aside`` makes room for a title beside it."""
    if layout.wide:
        height = round(layout.height * 0.68)
        width = round(height * _TALL_PANEL)
        centre = layout.width * (0.74 if aside else 0.5)
        return round(centre - width / 2), round(layout.height * 0.08), width, height
    part = (0.46 if aside else 0.52) if layout.tall else (0.46 if aside else 0.6)
    height = round(layout.height * part)
    width = min(round(height * _TALL_PANEL), round(layout.width * 0.84))
    bottom = round(layout.height * 0.7)
    return (layout.width - width) // 2, bottom - height, width, height


def title_box(layout: Layout, *, portrait: bool) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a presenter's title: beside the portrait, or above."""
    left, top = layout.margin, layout.top
    panel = panel_box(layout, aside=True)
    if portrait and layout.wide:
        return left, panel[1], panel[0] - round(1.6 * left), panel[3]
    bottom = panel[1] if portrait else round(layout.height * 0.37)
    return left, top, layout.width - 2 * left, bottom - top


def portrait_crop(picture: Image.Image, shape: float, face: Face | None) -> Image.Image:
    """The largest part of ``shape`` (width over height), or less where the face would be small."""
    width = min(picture.width, picture.height * shape)
    x, y = picture.width / 2, picture.height * 0.44
    if face is not None:
        width = min(width, face.width * picture.width / _FACE_PART)
        x, y = face.x * picture.width, face.y * picture.height - 0.06 * width / shape
    height = width / shape
    left = min(max(0.0, x - width / 2), picture.width - width)
    top = min(max(0.0, y - height / 2), picture.height - height)
    return picture.crop((round(left), round(top), round(left + width), round(top + height)))


class Presenter:
    """Draws the studio at any frame; ``levels`` is the voice's loudness, one 0..1 a frame."""

    def __init__(
        self,
        portrait: Image.Image,
        layout: Layout,
        *,
        levels: NDArray[np.float32],
        fps: int,
        aside: bool,
    ) -> None:
        self._levels, self._fps = levels, fps
        self._box = panel_box(layout, aside=aside)
        width, height = self._box[2:]
        plain = flat(portrait)
        ground = Image.blend(
            blurred(plain, canvas_size(layout), 0.42), card(canvas_size(layout), 0), 0.62
        )
        self._ground = Still(ground, layout.size, "zoom_in", len(levels) / fps)
        panel = portrait_crop(plain, width / height, find_face(plain))
        self._face = SpeakingPortrait(panel, (width, height), find_face(panel))
        radius = round(width * 0.07)
        self._shape = rounded((width, height), radius)
        self._shadow = _shadow(self._box, radius)
        self._glow = _glow(self._box, radius, accent(0))

    def draw(self, frame: int, progress: float) -> Image.Image:
        """The frame without its text. Everything follows the video's clock, not the scene's, so
        that a presenter goes on from one scene to the next."""
        seconds, level = frame / self._fps, float(self._levels[frame])
        picture = self._ground.draw(frame / len(self._levels))
        self._shadow.lay_over(picture)
        self._glow.lay_over(picture, 0.18 + 0.82 * level)
        picture.paste(self._face.draw(seconds, level), self._box[:2], self._shape)
        return picture


def _shadow(box: tuple[int, int, int, int], radius: int) -> Layer:
    left, top, width, height = box
    reach = max(4, width // 8)
    probe = Image.new("RGB", (width + 2 * reach, height + 2 * reach), "white")
    cast_shadow(probe, (reach, reach), (width, height), radius)
    picture = Image.new("RGBA", probe.size, (0, 0, 0, 0))
    picture.putalpha(probe.getchannel("R").point([255 - v for v in range(256)]))
    return Layer(picture, left - reach, top - reach)


def _glow(box: tuple[int, int, int, int], radius: int, colour: Colour) -> Layer:
    """A ring around the panel and the light that it sheds."""
    left, top, width, height = box
    line, reach = max(2, width // 90), max(6, width // 12)
    size = (width + 2 * reach, height + 2 * reach)
    shape = Image.new("L", size)
    outer = (width + 2 * line, height + 2 * line)
    shape.paste(rounded(outer, radius + line), (reach - line, reach - line))
    light = shape.filter(ImageFilter.GaussianBlur(reach * 0.42)).point(
        [v * 6 // 10 for v in range(256)]
    )
    light.paste(255, (0, 0), shape)
    picture = Image.new("RGBA", size, (*colour, 0))
    picture.putalpha(light)
    return Layer(picture, left - reach, top - reach)


class VoiceCard:
    """A card without a portrait: bars that move with the voice, the newest in the middle."""

    def __init__(
        self,
        layout: Layout,
        *,
        levels: NDArray[np.float32],
        fps: int,
        titled: bool,
    ) -> None:
        self._layout, self._levels, self._fps = layout, levels, fps
        self._colour = accent(0)
        self._ground = Still(
            card(canvas_size(layout), 0), layout.size, "zoom_in", len(levels) / fps
        )
        self._centre = 0.47 if titled else 0.42

    def draw(self, frame: int, progress: float) -> Image.Image:
        """The frame without its text."""
        picture = self._ground.draw(frame / len(self._levels))
        self._bars(frame).lay_over(picture)
        return picture

    def _bars(self, frame: int) -> Layer:
        """Twice as large, then scaled, so that the bars' ends are round."""
        layout = self._layout
        width, height = round(layout.width * 0.64), round(layout.height * 0.16)
        picture = Image.new("RGBA", (2 * width, 2 * height), (*self._colour, 0))
        pen = ImageDraw.Draw(picture)
        step = 2 * width / _BARS
        for bar in range(_BARS):
            half = self._height(frame, bar - _BARS // 2) * height
            left = (bar + 0.22) * step
            box = (left, height - half, left + step * 0.56, height + half)
            pen.rounded_rectangle(box, radius=step * 0.28, fill=(*self._colour, 255))
        small = picture.resize((width, height), Image.Resampling.BOX)
        top = round(layout.height * self._centre - height / 2)
        return Layer(small, (layout.width - width) // 2, top)

    def _height(self, frame: int, away: int) -> float:
        """Of a bar, 0..1: what was heard some moments ago, further from the middle longer ago."""
        past = frame - round(abs(away) * _BAR_STEP_SECONDS * self._fps)
        level = float(self._levels[past]) if past >= 0 else 0.0
        return max(0.03, 0.96 * level * exp(-((away / (0.62 * _BARS)) ** 2) * 2))
