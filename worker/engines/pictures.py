"""Pictures in and out: a tenant's bytes read within bounds, results written to the spool.

Pillow is imported where it is used, so that naming this module costs nothing.
"""

from __future__ import annotations

import hashlib
import io
import math
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from shared.errors import InvalidRequest
from shared.ids import artifact_id
from worker.engines.protocol import OutputFile

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_INPUT_PIXELS = 40_000_000
"""Of a picture that a tenant brings along: 120 MB once it is decoded."""
THUMBNAIL_SIDE = 256
DEFAULT_QUALITY = 90
"""Of JPEG and WebP, where a call names none."""
BEST_QUALITY = 100
"""Makes a WebP lossless."""
PNG_EFFORT = 3
"""Of 9: a third of the time of the usual 6, for about as many bytes."""

EXTENSIONS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
READABLE = ("PNG", "JPEG", "WEBP")

_ORIENTATION = 0x0112
"""Of EXIF: how a camera was held, 1 to 8."""


def decode_picture(
    source: bytes | str | Path,
    *,
    max_pixels: int = MAX_INPUT_PIXELS,
    formats: Sequence[str] = READABLE,
    param: str | None = "image",
) -> Image:
    """The first frame as RGB, or RGBA where the picture has transparency, upright.

    ``source`` is the encoded picture or its path. The size is taken from the head of the file,
    before any pixel is decoded, and only the named decoders are tried. Raises InvalidRequest,
    blaming ``param``, for anything that isn't a whole picture of at most ``max_pixels``.
    """
    from PIL import Image, UnidentifiedImageError

    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened, formats=list(formats)) as picture:
            if picture.width * picture.height > max_pixels:
                raise _too_large(picture.width, picture.height, max_pixels, param)
            picture.load()
            return _plain(_upright(picture))
    except UnidentifiedImageError:
        named = ", ".join(formats)
        raise InvalidRequest(f"not a picture in one of {named}", param=param) from None
    except Image.DecompressionBombError:
        raise InvalidRequest(f"the picture has over {max_pixels} pixels", param=param) from None
    except (InvalidRequest, FileNotFoundError, MemoryError):
        raise  # these are said as they are: the last two are ours, not the tenant's
    except Exception:
        # Pillow's decoders stumble over broken files in many ways (struct.error, zlib.error, …),
        # and whatever came out of here would end the engine, with the rows of other tenants.
        raise InvalidRequest("the picture is broken or cut short", param=param) from None


def _upright(picture: Image) -> Image:
    """Turned as its EXIF says. What is wrong with the EXIF is not wrong with the picture.

    Pillow's own ``exif_transpose`` writes the EXIF anew, which fails for what it could just read.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:
        return picture
    return picture if turn is None else picture.transpose(turn)


def _too_large(width: int, height: int, max_pixels: int, param: str | None) -> InvalidRequest:
    return InvalidRequest(
        f"the picture has {width}x{height} pixels, {max_pixels} are the most", param=param
    )


def _plain(picture: Image) -> Image:
    """RGB or RGBA of 8 bits, without metadata."""
    if picture.mode.startswith("I"):
        # Pillow would clip 16 bits of grey instead of scaling them.
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    plain = picture.convert("RGBA" if transparent else "RGB")
    plain.info = {}
    return plain


def encode_picture(picture: Image, format: str, quality: int | None = None) -> bytes:
    """The picture as ``png``, ``jpeg`` or ``webp``, without any metadata.

    ``quality`` is 0..100, for JPEG and WebP; 100 makes a WebP lossless. JPEG has no transparency:
    what shows through is white.
    """
    from PIL import Image

    bare = picture.copy()
    bare.info = {}
    chosen = DEFAULT_QUALITY if quality is None else quality
    options: dict[str, Any] = {"compress_level": PNG_EFFORT}
    if format == "jpeg":
        if "A" in bare.getbands():
            ground = Image.new("RGBA", bare.size, "white")
            bare = Image.alpha_composite(ground, bare.convert("RGBA"))
        bare = bare.convert("RGB")
        options = {"quality": chosen, "optimize": True}
    elif format == "webp":
        options = {"quality": chosen, "method": 4, "lossless": chosen == BEST_QUALITY}
    encoded = io.BytesIO()
    bare.save(encoded, format=format.upper(), **options)
    return encoded.getvalue()


def write_picture(
    picture: Image,
    *,
    spool: str | Path,
    row: str,
    name: str,
    format: str = "png",
    quality: int | None = None,
    role: str = "image",
    parent: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> OutputFile:
    """Encodes the picture into the spool and describes it. ``row`` is ``Row.id``."""
    return write_encoded(
        encode_picture(picture, format, quality),
        size=picture.size,
        spool=spool,
        row=row,
        name=name,
        format=format,
        role=role,
        parent=parent,
        provenance=provenance,
    )


def write_encoded(
    encoded: bytes,
    *,
    size: tuple[int, int],
    spool: str | Path,
    row: str,
    name: str,
    format: str,
    role: str = "image",
    parent: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> OutputFile:
    """Like ``write_picture`` for one that is encoded already; ``size`` is (width, height)."""
    path = Path(spool).absolute() / f"{uuid.uuid4().hex}{EXTENSIONS[format]}"
    path.write_bytes(encoded)
    return OutputFile(
        id=artifact_id(row, name),
        name=name,
        path=str(path),
        role=role,
        media_type=MEDIA_TYPES[format],
        bytes=len(encoded),
        sha256=hashlib.sha256(encoded).hexdigest(),
        parent=parent,
        width=size[0],
        height=size[1],
        provenance=provenance or {},
    )


def thumbnail(
    picture: Image, *, spool: str | Path, row: str, of: str, side: int = THUMBNAIL_SIDE
) -> OutputFile:
    """A WebP of at most ``side`` pixels a side, never larger than the picture.

    ``of`` is the name of the file that it illustrates: ``0.png`` → ``0.thumbnail.webp``.
    """
    small = picture.copy()
    small.thumbnail((side, side))
    return write_picture(
        small,
        spool=spool,
        row=row,
        name=f"{PurePath(of).stem}.thumbnail.webp",
        format="webp",
        quality=80,
        role="thumbnail",
        parent=artifact_id(row, of),
    )


def fit(picture: Image, size: tuple[int, int]) -> Image:
    """The picture scaled to cover ``size`` (width, height), what stands out cut off evenly."""
    from PIL import Image, ImageOps

    if picture.size == size:
        return picture
    return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def sheet(
    pictures: Sequence[Image], columns: int, *, gap: int = 0, background: str = "white"
) -> Image:
    """The pictures, all scaled to the first one's size, in rows of ``columns``."""
    from PIL import Image

    width, height = pictures[0].size
    rows = math.ceil(len(pictures) / columns)
    whole = Image.new(
        "RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), background
    )
    for place, picture in enumerate(pictures):
        down, across = divmod(place, columns)
        whole.paste(fit(picture, (width, height)), (across * (width + gap), down * (height + gap)))
    return whole
