"""A portrait that speaks: the jaw goes down with the voice, the head sways."""

from __future__ import annotations

from math import cos, pi, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.engines.composing.faces import Face

_OPENING = 0.07
"""How far the jaw goes down at most, in widths of the face."""
_MARGIN = 1.1
"""How much larger the portrait is kept than its panel, so that no edge shows when it sways."""


class SpeakingPortrait:
    """Draws one portrait at any moment and openness of the mouth."""

    def __init__(self, portrait: Image.Image, size: tuple[int, int], face: Face | None) -> None:
        """``portrait`` has the shape of ``size`` (width, height); without a ``face`` in it, only
        the whole moves."""
        from worker.engines.pictures import fit

        self._size = size
        self._canvas = fit(portrait, (round(size[0] * _MARGIN), round(size[1] * _MARGIN)))
        self._jaw = _Jaw(self._canvas, face) if face else None

    def draw(self, seconds: float, level: float) -> Image.Image:
        """The panel, RGB. ``level`` 0..1 opens the mouth."""
        spoken = self._jaw.opened(level**1.5) if self._jaw else self._canvas
        width, height = self._size
        angle = radians(0.7 * sin(2 * pi * seconds / 6.1) + 0.3 * sin(2 * pi * seconds / 3.7 + 1))
        closer = 1.0 / (1.015 + 0.01 * sin(2 * pi * seconds / 7.3) + 0.006 * level)
        x = 0.008 * sin(2 * pi * seconds / 5.3) + 0.003 * sin(2 * pi * seconds / 2.3)
        y = 0.006 * sin(2 * pi * seconds / 4.1 + 0.5) - 0.004 * level
        centre = spoken.width * (0.5 + x), spoken.height * (0.5 + y)
        a, b = closer * cos(angle), closer * sin(angle)
        matrix = (
            a, b, centre[0] - a * width / 2 - b * height / 2,
            -b, a, centre[1] + b * width / 2 - a * height / 2,
        )  # fmt: skip
        return spoken.transform(
            self._size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        )


class _Jaw:
    """The lower face, stretched downwards from the line between the lips."""

    def __init__(self, canvas: Image.Image, found: Face) -> None:
        self._canvas = canvas
        face = found.width * canvas.width
        x, y = found.x * canvas.width, found.y * canvas.height
        left, right = max(0, round(x - 0.42 * face)), min(canvas.width, round(x + 0.42 * face))
        top, bottom = max(0, round(y - 0.1 * face)), min(canvas.height, round(y + 0.62 * face))
        self._box = (left, top, right, bottom)
        self._pixels = np.asarray(canvas.crop(self._box), np.float32)
        rows = np.arange(top, bottom, dtype=np.float32)[:, None]
        columns = np.arange(left, right, dtype=np.float32)[None, :]
        across = np.clip(np.abs(columns - x) / (0.42 * face), 0, 1)
        self._across = np.cos(across * pi / 2) ** 2
        self._below = (rows - y) / face
        self._aside = (columns - x) / face

    def opened(self, level: float) -> Image.Image:
        """The canvas with the mouth open as far as ``level``."""
        if level <= 0.01 or not self._pixels.size:  # noqa: PLR2004 - nothing would be seen
            return self._canvas
        drop = _OPENING * level * self._across
        source = self._below - drop * _falloff(self._below, drop)
        shifted = _sampled(self._pixels, (source - self._below) * self._face_pixels)
        dark = self._darkness(level)
        painted = shifted * (1 - dark) + np.array((58, 22, 24), np.float32) * dark
        canvas = self._canvas.copy()
        mouth = Image.fromarray(np.rint(painted).clip(0, 255).astype(np.uint8))
        canvas.paste(mouth, self._box[:2])
        return canvas

    @property
    def _face_pixels(self) -> float:
        return (self._box[2] - self._box[0]) / float(np.ptp(self._aside) or 1.0)

    def _darkness(self, level: float) -> NDArray[np.float32]:
        """(height, width, 1): the inside of the mouth, between the lips that have parted."""
        half = _OPENING * level * 0.5
        wide = 0.15 - 0.02 * level
        shape = (self._aside / wide) ** 2 + ((self._below - half) / (half + 0.004)) ** 2
        soft = np.clip(1.25 - shape, 0, 1)
        return (soft * min(0.62, 1.4 * level)).astype(np.float32)[..., None]


def _falloff(below: NDArray[np.float32], drop: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of the drop each row takes: none above the lips, all of it at the lower lip, less
    and less down to the neck."""
    lip = np.clip(below / np.maximum(drop, 1e-3), 0, 1)
    neck = np.clip((below - 0.16) / 0.44, 0, 1)
    share: NDArray[np.float32] = lip * np.cos(neck * pi / 2) ** 2
    return share


def _sampled(pixels: NDArray[np.float32], shift: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each pixel taken from ``shift`` rows further down, between two rows where it falls there."""
    height = len(pixels)
    rows = np.clip(np.arange(height, dtype=np.float32)[:, None] + shift, 0, height - 1)
    upper = np.floor(rows).astype(np.intp)
    part = (rows - upper)[..., None]
    lower = np.minimum(upper + 1, height - 1)
    columns = np.arange(pixels.shape[1])[None, :]
    taken: NDArray[np.float32] = pixels[upper, columns] * (1 - part) + pixels[lower, columns] * part
    return taken
