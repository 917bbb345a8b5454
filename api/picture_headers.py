"""What a picture's header says, read without decoding a pixel: a bomb costs nothing here.

Only PNG, JPEG and WebP are pictures. A file that ends before its format says so is refused too.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO, NoReturn

from shared.errors import MediaTooLarge, UnsupportedMedia

MAX_PICTURE_BYTES = 32 * 2**20
MAX_PIXELS = 40_000_000
"""No more than engines decode, so that a job does not fail for what could be said at once."""
MAX_SIDE = 32_768

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_MOST_SEGMENTS = 20_000
"""Of a JPEG's or PNG's parts before its end is looked for no further."""
_JPEG_END = b"\xff\xd9"
_TAIL_BYTES = 65_536
"""How much may follow a JPEG's end: cameras append previews and padding."""
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN = 0xDA


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a picture is, by its own account."""

    media_type: str
    extension: str
    width: int
    height: int


def read_picture_header(file: IO[bytes], *, param: str) -> PictureHeader:
    """The header of a seekable file, found whole and within bounds.

    Raises UnsupportedMedia, or MediaTooLarge, with ``param`` as the field to blame.
    """
    size = file.seek(0, os.SEEK_END)
    if size > MAX_PICTURE_BYTES:
        raise MediaTooLarge(f"a picture may have at most {MAX_PICTURE_BYTES} bytes", param=param)
    file.seek(0)
    start = file.read(16)
    try:
        if start.startswith(_PNG):
            header = _png(file, size)
        elif start.startswith(_JPEG):
            header = _jpeg(file, size)
        elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            header = _webp(file, size)
        else:
            raise UnsupportedMedia("pictures must be PNG, JPEG or WebP", param=param)
    except (_Damaged, struct.error):
        raise UnsupportedMedia("the picture is damaged or incomplete", param=param) from None
    _check_size(header, param)
    return header


class _Damaged(Exception):
    """The file is not what its first bytes promise."""


def _damaged() -> NoReturn:
    raise _Damaged


def _check_size(header: PictureHeader, param: str) -> None:
    width, height = header.width, header.height
    if not width or not height:
        raise UnsupportedMedia("the picture has no pixels", param=param)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaTooLarge(
            f"the picture is {width}x{height}: the most is {MAX_PIXELS // 10**6} megapixels, "
            f"{MAX_SIDE} a side",
            param=param,
        )


def _png(file: IO[bytes], size: int) -> PictureHeader:
    file.seek(8)
    length, kind, width, height = struct.unpack(">I4sII", file.read(16))
    if kind != b"IHDR" or length != 13:  # noqa: PLR2004 - fixed by the format
        _damaged()
    place = 8 + 12 + length
    for _ in range(_MOST_SEGMENTS):
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        place += 12 + length
        if place > size:
            _damaged()
        if kind == b"IEND":
            return PictureHeader("image/png", ".png", width, height)
    return _damaged()


def _jpeg(file: IO[bytes], size: int) -> PictureHeader:
    place = 2
    for _ in range(_MOST_SEGMENTS):
        file.seek(place)
        mark, kind = struct.unpack(">BB", file.read(2))
        if mark != 0xFF:  # noqa: PLR2004 - every segment begins with it
            _damaged()
        if kind == 0xFF or kind in _STANDALONE:  # noqa: PLR2004 - fill, or a mark without content
            place += 1 if kind == 0xFF else 2  # noqa: PLR2004
            continue
        if kind == _SCAN or kind == _JPEG_END[1]:
            _damaged()
        (length,) = struct.unpack(">H", file.read(2))
        if kind in _SOF:
            _, height, width = struct.unpack(">BHH", file.read(5))
            _require_jpeg_end(file, size)
            return PictureHeader("image/jpeg", ".jpg", width, height)
        place += 2 + length
    return _damaged()


def _require_jpeg_end(file: IO[bytes], size: int) -> None:
    file.seek(max(0, size - _TAIL_BYTES))
    if _JPEG_END not in file.read(_TAIL_BYTES):
        _damaged()


def _webp(file: IO[bytes], size: int) -> PictureHeader:
    file.seek(4)
    (length,) = struct.unpack("<I", file.read(4))
    if length + 8 > size:
        _damaged()
    file.seek(12)
    kind, _ = struct.unpack("<4sI", file.read(8))
    data = file.read(10)
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[4:7], "little")
        height = 1 + int.from_bytes(data[7:10], "little")
    elif kind == b"VP8L" and data[:1] == b"\x2f":
        bits = int.from_bytes(data[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        width, height = (part & 0x3FFF for part in struct.unpack("<HH", data[6:10]))
    else:
        _damaged()
    return PictureHeader("image/webp", ".webp", width, height)
