"""One picture turning into the next."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from shared.specs.videos import Transition

_EDGE = 0.12
"""Width of a wipe's soft edge, as a part of the frame."""


def mixed(before: Image.Image, after: Image.Image, mix: float, kind: Transition) -> Image.Image:
    """The frame between two of equal size; ``mix`` is how much of ``after`` is seen, 0..1."""
    match kind:
        case "slide":
            return _slid(before, after, mix)
        case "wipe":
            mask = _edge(before.width, before.height)
            edge = mask.width - 2 * before.width
            left = before.width + edge - round(mix * (before.width + edge))
            return Image.composite(
                after, before, mask.crop((left, 0, left + before.width, before.height))
            )
        case _:
            return Image.blend(before, after, mix)


def _slid(before: Image.Image, after: Image.Image, mix: float) -> Image.Image:
    """``after`` comes in from the right; ``before`` leaves at a third of its speed, darkening."""
    width, height = before.size
    place = width - round(width * mix)
    frame = Image.new("RGB", (width, height))
    frame.paste(before, (-((width - place) // 3), 0))
    frame = Image.blend(frame, Image.new("RGB", (width, height)), 0.45 * mix)
    frame.paste(after, (place, 0))
    return frame


@lru_cache(maxsize=4)
def _edge(width: int, height: int) -> Image.Image:
    """White, a soft edge, black: a mask to be cut at any place."""
    edge = max(2, round(width * _EDGE))
    ramp = np.linspace(255, 0, edge, dtype=np.float32)
    row = np.concatenate([np.full(width, 255), ramp, np.zeros(width)]).astype(np.uint8)
    return Image.fromarray(np.tile(row, (height, 1)))
