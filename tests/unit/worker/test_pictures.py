"""Pictures in and out: bounds, formats, transparency, metadata, thumbnails."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from shared.errors import InvalidRequest
from shared.ids import artifact_id
from worker.engines.pictures import (
    decode_picture,
    encode_picture,
    fit,
    sheet,
    thumbnail,
    write_picture,
)

ROW = "job_1-0"


def gradient(width: int = 40, height: int = 24, mode: str = "RGB") -> Image.Image:
    """Something with a left, a right, a top and a bottom."""
    across = np.linspace(0, 255, width, dtype=np.uint8)[None].repeat(height, 0)
    down = np.linspace(0, 255, height, dtype=np.uint8)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([across, down, 255 - across], axis=-1)).convert(mode)


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def pixels(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_formats_are_read_from_bytes_and_from_a_path(format: str, tmp_path: Path) -> None:
    given = encoded(gradient(), format, quality=95)
    path = tmp_path / "a picture"
    path.write_bytes(given)
    for source in (given, path, str(path)):
        found = decode_picture(source)
        assert (found.mode, found.size) == ("RGB", (40, 24))
        assert np.abs(pixels(found) - pixels(gradient())).mean() < 6


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA"])
def test_any_mode_becomes_rgb_or_rgba(mode: str) -> None:
    format = "JPEG" if mode == "CMYK" else "PNG"
    found = decode_picture(encoded(gradient(mode=mode), format))
    assert found.mode == ("RGBA" if "A" in mode else "RGB")


def test_a_transparent_colour_of_a_palette_becomes_alpha() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putdata([0, 1])
    found = decode_picture(encoded(picture, "PNG", transparency=1))
    assert [found.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0, 255), (0, 255, 0, 0)]


def test_sixteen_bits_of_grey_are_scaled_not_clipped() -> None:
    values = np.array([[0, 0x4000, 0x8000, 0xFFFF]], np.uint16)
    found = decode_picture(encoded(Image.fromarray(values), "PNG"))
    assert [found.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 64, 128, 255)]


def test_a_rotated_photograph_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    found = decode_picture(encoded(gradient(), "JPEG", exif=exif, quality=95))
    assert found.size == (24, 40)
    upright = gradient().transpose(Image.Transpose.ROTATE_270)
    assert np.abs(pixels(found) - pixels(upright)).mean() < 6


def bomb(width: int, height: int) -> bytes:
    """A PNG whose head promises more than its bytes hold."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "not a picture"),
        (b"GIF89a nothing", "not a picture"),
        (encoded(gradient(), "GIF"), "not a picture in one of PNG, JPEG, WEBP"),
        (encoded(gradient(), "BMP"), "not a picture"),
        (encoded(gradient(), "JPEG")[:200], "not a picture|cut short"),
        (encoded(gradient(), "PNG")[:-40], "cut short"),
        (encoded(gradient(), "WEBP")[:-40], "not a picture|cut short"),
        (bomb(40_000, 40_000), "pixels"),
        (bomb(1_001, 1_000), "1001x1000 pixels, 1000000 are the most"),
    ],
)
def test_what_is_no_whole_picture_is_refused(source: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        decode_picture(source, max_pixels=1_000_000, param="mask")
    assert refused.value.param == "mask"


def test_a_missing_file_is_not_the_tenants_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode_picture(tmp_path / "gone")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_results_carry_no_metadata(format: str) -> None:
    told = PngImagePlugin.PngInfo()
    told.add_text("prompt", "a secret")
    picture = Image.open(io.BytesIO(encoded(gradient(), "PNG", pnginfo=told, dpi=(72, 72))))
    written = encode_picture(picture, format)
    assert b"secret" not in written
    found = Image.open(io.BytesIO(written))
    assert set(found.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop",
                               "background", "timestamp", "duration"}  # fmt: skip
    assert not found.getexif()


def test_png_and_the_best_webp_lose_nothing_and_quality_buys_bytes() -> None:
    for format, quality in (("png", None), ("webp", 100)):
        found = decode_picture(encode_picture(gradient(), format, quality))
        np.testing.assert_array_equal(pixels(found), pixels(gradient()))
    for format in ("jpeg", "webp"):
        noisy = Image.effect_noise((64, 64), 80).convert("RGB")
        sizes = [len(encode_picture(noisy, format, quality)) for quality in (5, 50, 95)]
        assert sizes == sorted(set(sizes))


def test_behind_a_transparent_jpeg_is_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_picture(encode_picture(clear, "jpeg")).getpixel((4, 4)) == (255, 255, 255)


def test_a_file_in_the_spool_is_described(tmp_path: Path) -> None:
    spool = tmp_path / "the spool"
    spool.mkdir()
    made = [
        write_picture(gradient(), spool=spool, row=ROW, name="0.jpg", format="jpeg", quality=50)
        for _ in range(2)
    ]
    assert made[0].path != made[1].path
    assert made[0].id == made[1].id == artifact_id(ROW, "0.jpg")
    content = Path(made[0].path).read_bytes()
    assert Path(made[0].path).parent == spool
    assert Path(made[0].path).suffix == ".jpg"
    assert (made[0].bytes, made[0].sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (made[0].width, made[0].height, made[0].media_type) == (40, 24, "image/jpeg")
    assert (made[0].role, made[0].parent) == ("image", None)


def test_a_thumbnail_is_small_and_knows_its_picture(tmp_path: Path) -> None:
    made = thumbnail(gradient(600, 300), spool=tmp_path, row=ROW, of="0.png")
    assert (made.name, made.role, made.media_type) == (
        "0.thumbnail.webp",
        "thumbnail",
        "image/webp",
    )
    assert (made.width, made.height) == (256, 128)
    assert made.parent == artifact_id(ROW, "0.png")
    small = decode_picture(made.path)
    assert np.abs(pixels(small) - pixels(gradient(256, 128))).mean() < 6
    assert thumbnail(gradient(), spool=tmp_path, row=ROW, of="1.png").width == 40


def test_fit_covers_and_cuts_evenly() -> None:
    found = pixels(fit(gradient(400, 100), (100, 100)))
    assert found.shape == (100, 100, 3)
    assert abs(int(found[50, 50, 0]) - 127) < 6, "the middle stays in the middle"
    assert found[50, 0, 0] > 80, "what stood out at the left is gone"


def test_a_sheet_puts_pictures_in_rows() -> None:
    pictures = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    found = sheet(pictures, 2, gap=1, background="black")
    assert found.size == (9, 9)
    assert found.getpixel((1, 1)) == (255, 0, 0)
    assert found.getpixel((6, 1)) == (0, 255, 0)
    assert found.getpixel((1, 6)) == (0, 0, 255)
    assert found.getpixel((4, 4)) == (0, 0, 0)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    given = encoded(gradient(), format, exif=exif, quality=95)
    with Image.open(io.BytesIO(given)) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    found = decode_picture(given)
    assert found.size == expected.size
    assert np.array_equal(pixels(found), pixels(expected))


def test_a_broken_exif_does_not_spoil_its_picture() -> None:
    """Turned clockwise, and a compression of 70,000, which Pillow reads but can't write again."""
    entries = struct.pack("<HHII", 0x0103, 4, 1, 70_000) + struct.pack("<HHII", 0x0112, 3, 1, 6)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + b"\0\0\0\0"
    given = encoded(gradient(), "JPEG", exif=exif)
    with Image.open(io.BytesIO(given)) as opened, pytest.raises(struct.error):
        ImageOps.exif_transpose(opened)
    assert decode_picture(given).size == (24, 40)


def test_whatever_a_decoder_stumbles_over_is_the_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(_self: Image.Image) -> None:
        raise zlib.error("Error -3 while decompressing data")

    given = encoded(gradient(), "PNG")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", stumble)
    with pytest.raises(InvalidRequest, match="broken or cut short"):
        decode_picture(given)
