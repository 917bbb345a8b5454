"""What is seen behind the text: a picture that fills the frame, or a coloured card."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from shared.specs.videos import Motion
from worker.engines.composing.drawing import Colour, rounded
from worker.engines.composing.layout import Layout
from worker.engines.composing.motion import OVERSCAN, seen

_LEAST_KEPT = 0.5
"""A picture that would lose more of itself is shown whole, before a blurred copy of itself."""
_MOST_ENLARGED = 4.0
"""A picture that would be enlarged more is shown smaller, in a frame."""
_FRAMED_PART = 0.66
_PALETTE: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((11, 19, 43), (28, 74, 112), (72, 149, 239)),
    ((20, 14, 38), (79, 38, 96), (224, 94, 126)),
    ((6, 32, 39), (11, 84, 86), (64, 201, 162)),
    ((33, 18, 16), (120, 53, 36), (245, 158, 66)),
    ((14, 22, 20), (46, 82, 60), (163, 204, 92)),
)


def accent(scene: int) -> Colour:
    """The bright colour of a scene's card."""
    return _PALETTE[scene % len(_PALETTE)][2]


class Still:
    """A picture under a slowly moving camera."""

    def __init__(
        self, canvas: Image.Image, size: tuple[int, int], motion: Motion, seconds: float
    ) -> None:
        """``canvas`` has the shape of the frame, ``size`` is the frame's."""
        self._canvas = canvas
        self._size = size
        self._motion = motion
        self._seconds = seconds

    def draw(self, progress: float) -> Image.Image:
        box = seen(self._motion, progress, self._seconds, self._canvas.size)
        return self._canvas.resize(self._size, Image.Resampling.BICUBIC, box=box)


def canvas_size(layout: Layout) -> tuple[int, int]:
    return round(layout.width * OVERSCAN), round(layout.height * OVERSCAN)


def canvas_of(picture: Image.Image, layout: Layout) -> tuple[Image.Image, bool]:
    """The picture, larger than the frame and of its shape, and whether it stands free in it.

    It is cut where little is lost, else shown whole before a blurred copy; one of few pixels stands
    free, in a frame, instead of being blown up.
    """
    from worker.engines.pictures import fit

    size = canvas_size(layout)
    plain = flat(picture)
    covering = max(size[0] / plain.width, size[1] / plain.height)
    holding = min(size[0] / plain.width, size[1] / plain.height)
    cut = holding / covering >= _LEAST_KEPT
    if (covering if cut else holding) > _MOST_ENLARGED * OVERSCAN:
        return _framed(plain, size), True
    return (fit(plain, size) if cut else _whole(plain, size)), False


def flat(picture: Image.Image, ground: Colour = (16, 18, 24)) -> Image.Image:
    """RGB; what is transparent shows ``ground``."""
    if picture.mode == "RGB":
        return picture
    base = Image.new("RGBA", picture.size, (*ground, 255))
    return Image.alpha_composite(base, picture.convert("RGBA")).convert("RGB")


def blurred(picture: Image.Image, size: tuple[int, int], light: float = 0.5) -> Image.Image:
    """A dim, blurred copy that covers ``size``; cheap, since it is blurred while small."""
    from worker.engines.pictures import fit

    small = fit(picture, (max(2, size[0] // 12), max(2, size[1] // 12)))
    soft = small.filter(ImageFilter.GaussianBlur(max(1.0, small.width / 22)))
    return ImageEnhance.Brightness(soft.resize(size, Image.Resampling.BICUBIC)).enhance(light)


def _whole(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    ground = blurred(picture, size)
    scale = min(size[0] / picture.width, size[1] / picture.height)
    shown = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    place = ((size[0] - shown[0]) // 2, (size[1] - shown[1]) // 2)
    ground.paste(picture.resize(shown, Image.Resampling.LANCZOS), place)
    return ground


def _framed(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    ground = blurred(picture, size, 0.42)
    box = size[0] * 0.8, size[1] * _FRAMED_PART
    scale = min(box[0] / picture.width, box[1] / picture.height)
    shown = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    left, top = (size[0] - shown[0]) // 2, round((size[1] - shown[1]) * 0.36)
    radius = max(2, min(shown) // 28)
    cast_shadow(ground, (left, top), shown, radius)
    enlarged = picture.resize(shown, Image.Resampling.LANCZOS)
    ground.paste(enlarged, (left, top), rounded(shown, radius))
    return ground


def cast_shadow(
    ground: Image.Image, place: tuple[int, int], size: tuple[int, int], radius: int
) -> None:
    """Darkens ``ground`` softly around a panel that will stand at ``place``."""
    reach = max(4, min(size) // 14)
    shade = Image.new("L", (size[0] + 4 * reach, size[1] + 4 * reach))
    shade.paste(rounded(size, radius).point([v * 7 // 10 for v in range(256)]), (2 * reach,) * 2)
    shade = shade.filter(ImageFilter.GaussianBlur(reach * 0.7))
    ground.paste((0, 0, 0), (place[0] - 2 * reach, place[1] - 2 * reach + reach // 2), shade)


def card(size: tuple[int, int], scene: int) -> Image.Image:
    """A dark gradient with two soft lights, in the scene's colours."""
    width, height = size
    dark, middle, bright = (np.array(c, np.float32) for c in _PALETTE[scene % len(_PALETTE)])
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    pixels = dark + (middle - dark) * np.clip(0.75 * across + 0.45 * (1 - down) - 0.1, 0, 1)
    for x, y, reach, strength in ((0.88, 0.12, 0.55, 0.34), (0.10, 0.98, 0.5, 0.16)):
        shape = width / height
        far = ((across - x) * shape) ** 2 + (down - y) ** 2
        pixels = pixels + (bright - pixels) * strength * np.exp(-far / (reach * reach))
    # A dark gradient has few levels; noise of one level hides their edges.
    noise = np.random.default_rng(scene).random((height, width, 1), np.float32)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
