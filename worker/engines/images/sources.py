"""The pictures that an edit or a variation starts from, brought to the size to be made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shared.errors import InvalidRequest
from shared.specs.media import MediaReference
from worker.engines.pictures import decode_picture, fit
from worker.engines.protocol import Row

if TYPE_CHECKING:
    from PIL.Image import Image

_CLEAR_BELOW = 128
"""Alpha, of 255, under which a pixel of a mask counts as transparent."""


def read_picture(reference: MediaReference, row: Row, param: str) -> Image:
    """The picture that the body names or holds. Raises InvalidRequest, blaming ``param``."""
    try:
        data = reference.data()
    except ValueError as error:
        raise InvalidRequest(str(error), param=param) from None
    if data is not None:
        return decode_picture(data[1], param=param)
    path = row.inputs.get(reference.name)
    if path is None:
        raise InvalidRequest(f"there is no picture {reference.name}", param=param)
    return decode_picture(path, param=param)


def edit_mask(image: Image, mask: Image | None) -> Image | None:
    """Where to edit: white in an L picture of the image's size; None for everywhere.

    After OpenAI's convention what is transparent is edited: in the mask, or in the image itself
    when there is no mask. Raises InvalidRequest for a mask that can't be meant.
    """
    if mask is None:
        return _clear(image) if _has_clear(image) else None
    if mask.size != image.size:
        raise InvalidRequest(
            f"the mask has {mask.width}x{mask.height} pixels, "
            f"the image {image.width}x{image.height}",
            param="mask",
        )
    if not _has_clear(mask):
        raise InvalidRequest(
            "the mask has no transparent pixels, which are what is edited", param="mask"
        )
    return _clear(mask)


def _has_clear(picture: Image) -> bool:
    if "A" not in picture.getbands():
        return False
    lowest, _ = picture.getchannel("A").getextrema()
    return isinstance(lowest, int | float) and lowest < _CLEAR_BELOW


def _clear(picture: Image) -> Image:
    return picture.getchannel("A").point(lambda alpha: 255 if alpha < _CLEAR_BELOW else 0)


def fitted(image: Image, mask: Image | None, size: tuple[int, int]) -> tuple[Image, Image | None]:
    """RGB image and L mask, both of ``size``, scaled and cut alike.

    What shows through a transparent image is white.
    """
    ready = fit(_on_white(image), size)
    if mask is None:
        return ready, None
    return ready, fit(mask, size).point(lambda value: 255 if value >= _CLEAR_BELOW else 0)


def _on_white(image: Image) -> Image:
    from PIL import Image

    if "A" not in image.getbands():
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def like(
    given: tuple[int, int], own: tuple[int, int], *, multiple: int, max_side: int
) -> tuple[int, int]:
    """A size (width, height) of the given one's proportions and about as many pixels as ``own``.

    Both sides are multiples of ``multiple``, at least one and at most ``max_side``.
    """
    scale = math.sqrt(own[0] * own[1] / (given[0] * given[1]))
    most = max_side // multiple
    sides = [min(max(1, round(side * scale / multiple)), most) * multiple for side in given]
    while sides[0] * sides[1] > own[0] * own[1] and max(sides) > multiple:
        sides[sides.index(max(sides))] -= multiple
    return sides[0], sides[1]
