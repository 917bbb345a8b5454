"""Where the face is in a portrait, and its mouth, found by the colours of skin and lips. No model,
no promise: where no skin is seen, there is no face to move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WORKING_WIDTH = 120
_WIDTHS = (0.16, 0.22, 0.3, 0.4, 0.52)
"""Widths of faces that are looked for, in widths of the picture."""
_LONG = 1.3
"""Height of a face, in its widths."""
_LEAST_SCORE = 0.34
_LEAST_FILLED = 0.68
"""Of a face is skin."""
_MOUTH = 0.78
"""From the top of a face to its mouth, in its heights."""
_MOUTH_SPREAD = 0.1
_LIPS = 0.13
"""How far the lips' colour reaches from the row that was found, in widths of the face."""
_HIGHEST, _LOWEST = 0.16, 0.8
"""Where a portrait's mouth may be, from the top."""
_FURTHEST_ASIDE = 0.4
"""From the middle, where the side is 1."""

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Face:
    """In parts of the picture's width (x, width) and height (y)."""

    x: float
    """The middle of the face, and of the mouth."""
    y: float
    """The line between the lips."""
    width: float


def find_face(portrait: Image.Image) -> Face | None:
    """The one face that looks at the camera; None when there seems to be none."""
    height = max(8, round(portrait.height * _WORKING_WIDTH / portrait.width))
    small = portrait.convert("RGB").resize((_WORKING_WIDTH, height), Image.Resampling.BOX)
    planes = np.asarray(small.convert("YCbCr"), np.float32)
    light, blue, red = planes[..., 0], planes[..., 1], planes[..., 2]
    skin = ((light > 60) & (blue > 80) & (blue < 128) & (red > 134) & (red < 168)).astype(  # noqa: PLR2004
        np.float32
    )
    best = _best_oval(skin)
    if best is None:
        return None
    left, _, width = best
    y = _mouth_row(light, red, best)
    return Face((left + width / 2) / _WORKING_WIDTH, y / height, width / _WORKING_WIDTH)


def _best_oval(skin: Plane) -> tuple[int, int, int] | None:
    """(left, top, width) of the place with most skin inside and least around it. The middle of
    the picture is preferred."""
    best: tuple[float, tuple[int, int, int]] | None = None
    for part in _WIDTHS:
        across = round(part * skin.shape[1])
        if round(across * _LONG) >= len(skin):
            continue
        score = _scores(skin, across, round(across * _LONG))
        top, left = np.unravel_index(int(np.argmax(score)), score.shape)
        if best is None or score[top, left] > best[0]:
            best = float(score[top, left]), (int(left), int(top), across)
    return best[1] if best is not None and best[0] > _LEAST_SCORE else None


def _scores(skin: Plane, across: int, down: int) -> Plane:
    """How much like a face each place of a size is, by its upper left corner; -1 for no face."""
    height, width = skin.shape
    margin = max(2, across // 3)
    inside = _boxes(skin, across, down)
    wide = _boxes(np.pad(skin, margin), across + 2 * margin, down + 2 * margin)
    seen = _boxes(np.pad(np.ones_like(skin), margin), across + 2 * margin, down + 2 * margin)
    ring = (wide - inside) / np.maximum(seen - across * down, 1)
    filled = inside / (across * down)
    aside = np.abs((np.arange(inside.shape[1]) + across / 2) / width - 0.5) * 2
    lips = (np.arange(len(inside)) + _MOUTH * down) / height
    score: Plane = filled - 0.9 * ring - 0.25 * aside[None, :]
    score[filled < _LEAST_FILLED] = -1
    score[(lips < _HIGHEST) | (lips > _LOWEST)] = -1
    score[:, aside > _FURTHEST_ASIDE] = -1
    return score


def _boxes(values: Plane, across: int, down: int) -> Plane:
    """The sum within every rectangle of a size, by its upper left corner."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    lower, upper = sums[down:], sums[:-down]
    total: Plane = lower[:, across:] - upper[:, across:] - lower[:, :-across] + upper[:, :-across]
    return total


def _mouth_row(light: Plane, red: Plane, face: tuple[int, int, int]) -> int:
    """The row that is reddest and darkest for its surroundings, near where mouths are."""
    left, top, width = face
    centre, reach = left + width / 2, max(2.0, width * 0.17)
    columns = slice(round(centre - reach), round(centre + reach) + 1)
    rows = np.arange(len(light))
    hue, shade = red[:, columns].mean(axis=1), light[:, columns].mean(axis=1)
    radius = max(2, round(width * 0.12))
    contrast = (hue - _around(hue, radius)) + 0.5 * (_around(shade, radius) - shade)
    down = width * _LONG
    prior = np.exp(-(((rows - top - _MOUTH * down) / (_MOUTH_SPREAD * down)) ** 2) / 2)
    found = int(np.argmax(np.maximum(contrast, 0.2) * prior))
    # Between two lips, not on one: a smile shows teeth between them.
    near = np.abs(rows - found - 0.03 * width) <= _LIPS * width
    weights = np.where(near, np.maximum(hue - _around(hue, radius), 0), 0)
    return round(float((weights * rows).sum() / weights.sum())) if weights.any() else found


def _around(values: Plane, radius: int) -> Plane:
    """The mean of each value's neighbourhood."""
    padded = np.pad(values, radius, mode="edge")
    kernel = np.full(2 * radius + 1, 1 / (2 * radius + 1), np.float32)
    return np.convolve(padded, kernel, "valid").astype(np.float32)
