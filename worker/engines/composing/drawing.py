"""Shapes with smooth edges, and layers that are laid over a frame."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
_FINER = 4
"""Shapes are drawn this much larger and scaled down."""


def even(value: float) -> int:
    """The nearest even number from 2."""
    return max(2, 2 * round(value / 2))


def rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask (L) of a rectangle with round corners that fills ``size``."""
    width, height = size
    mask = Image.new("L", (width * _FINER, height * _FINER))
    box = (0, 0, width * _FINER - 1, height * _FINER - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=radius * _FINER, fill=255)
    return mask.resize(size, Image.Resampling.BOX)


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture with transparency and where its upper left corner goes."""

    picture: Image.Image
    """RGBA."""
    left: int
    top: int

    def lay_over(
        self, frame: Image.Image, opacity: float = 1.0, *, across: float = 0.0, down: float = 0.0
    ) -> None:
        """Draws it on an RGB frame, shifted by whole pixels; what stands out is cut off."""
        if opacity <= 0:
            return
        mask = self.picture.getchannel("A")
        if opacity < 1:
            mask = mask.point([round(value * opacity) for value in range(256)])
        place = (self.left + round(across), self.top + round(down))
        frame.paste(self.picture.convert("RGB"), place, mask)


def plate(size: tuple[int, int], radius: int, colour: Colour, alpha: float) -> Image.Image:
    """A translucent rectangle with round corners, RGBA."""
    picture = Image.new("RGBA", size, (*colour, 0))
    picture.putalpha(rounded(size, radius).point([round(v * alpha) for v in range(256)]))
    return picture
