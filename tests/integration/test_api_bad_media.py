"""Bombs, fakes and fragments sent as pictures: refused by their headers, soon, in little memory."""

from __future__ import annotations

import base64
import io
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from api import picture_headers
from api.picture_headers import read_picture_header
from tests.integration.media_case import BRIEF, PAINTER, MediaCase, png
from worker.engines.pictures import MAX_INPUT_PIXELS

SOON_SECONDS = 2.0
MOST_RESIDENT_KIB = 256 * 1024
GOOD = png(40, 30)
JPEG_HEAD = bytes.fromhex("ffd8ffe000104a46494600010100000100010000")


def jpeg(width: int, height: int, end: bytes = b"\xff\xd9") -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return (
        JPEG_HEAD + b"\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame
        + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\0" * 50 + end
    )  # fmt: skip


def webp(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bomb() -> bytes:
    """60,000 x 60,000 black pixels, well-formed: 10.8 GB once decoded."""
    packer, rows = zlib.compressobj(9), []
    line = b"\0" * (1 + 3 * 60_000)
    for _ in range(600):
        rows.append(packer.compress(line * 10))
    return png(60_000, 60_000, data=b"".join(rows) + packer.flush())


BAD: dict[str, tuple[bytes, str]] = {
    "a PNG of 60,000 x 60,000": (bomb(), "media_too_large"),
    "a JPEG of 65,535 x 65,535": (jpeg(65_535, 65_535), "media_too_large"),
    "a WebP of 16,000 x 16,000": (webp(16_000, 16_000), "media_too_large"),
    "a PNG of one row of 64 million": (png(64_000_000, 1, data=b"x"), "media_too_large"),
    "a PNG of 41 megapixels": (png(8_200, 5_000, data=b"x"), "media_too_large"),
    "a PNG without pixels": (png(0, 10, data=b"x"), "unsupported_media"),
    "a truncated PNG": (GOOD[:-20], "unsupported_media"),
    "a PNG's first bytes": (GOOD[:12], "unsupported_media"),
    "a PNG whose chunk claims 4 GB": (
        GOOD[:33] + b"\xff\xff\xff\xff" + GOOD[37:], "unsupported_media"),
    "a PNG of endless empty chunks": (
        GOOD[:33] + b"\0\0\0\0tEXt\0\0\0\0" * 50_000, "unsupported_media"),
    "a truncated JPEG": (jpeg(10, 10, end=b""), "unsupported_media"),
    "a JPEG without a frame": (JPEG_HEAD + b"\xff\xd9", "unsupported_media"),
    "a JPEG of fill bytes": (JPEG_HEAD + b"\xff" * 100_000, "unsupported_media"),
    "a truncated WebP": (webp(10, 10)[:-2], "unsupported_media"),
    "a WebP of an unknown kind": (b"RIFF\x14\0\0\0WEBPXXXX" + b"\0" * 12, "unsupported_media"),
    "a GIF of 65,535 x 65,535": (
        b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0" * 300, "unsupported_media"),
    "an SVG": (
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "unsupported_media"),
    "a FITS file": (b"SIMPLE  =                    T" + b" " * 2_850, "unsupported_media"),
    "a BMP": (b"BM" + b"\0" * 100, "unsupported_media"),
    "a TIFF": (b"II*\0" + b"\0" * 100, "unsupported_media"),
    "a zip": (b"PK\x03\x04" + b"\0" * 100, "unsupported_media"),
    "an HLS playlist": (b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n", "unsupported_media"),
    "nothing": (b"", "unsupported_media"),
}  # fmt: skip


@pytest.fixture(scope="module")
def media(
    postgres_server: Any, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MediaCase]:
    """One for all: nothing here is ever accepted."""
    name = "api_bad_media"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    case = MediaCase(postgres_server.url_of(name), tmp_path_factory.mktemp("media"))
    yield case
    case.close()
    with postgres_server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


STATUS = {"media_too_large": 413, "unsupported_media": 400}


def assert_refused(reply: Any, code: str, param: str) -> None:
    assert (reply.json["error"]["code"], reply.json["error"]["param"]) == (code, param)
    assert reply.status_code == STATUS[code]


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_as_an_upload_and_as_a_data_url(media: MediaCase, name: str) -> None:
    content, code = BAD[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    for path, field in (
        ("/v1/images/edits", "image"),
        ("/v1/images/edits", "mask"),
        ("/v1/images/variations", "image"),
        ("/v1/videos", "input_reference"),
    ):
        form = {"prompt": "x", "model": PAINTER, field: (io.BytesIO(content), "x.png")}
        reply = media.client.post(path, data=form, headers=media.key)
        assert_refused(reply, code, field)
        assert_refused(media.post(path, {"prompt": "x", field: url}), code, field)
    assert_refused(media.post("/v1/campaigns", BRIEF | {"logo": url}), code, "logo")
    body = {"model": PAINTER, "image": {"image_url": url}}
    if len(url) < media.settings.max_body_bytes - 1_000:
        job = {"endpoint": "/v1/images/variations", "body": body}
        assert_refused(media.post("/v1/jobs", job), code, "body.image")
    assert time.monotonic() - start < 10 * SOON_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_RESIDENT_KIB
    assert media.get("/v1/files").json["data"] == []
    assert media.get("/v1/jobs").json["data"] == []
    assert list(media.settings.scratch_dir.iterdir()) == []


def test_scenes_are_looked_into(media: MediaCase) -> None:
    url = "data:image/gif;base64,R0lGODlhAQABAA=="
    scenes = [{"seconds": 1}, {"picture": url, "seconds": 1}]
    reply = media.post("/v1/videos/compositions", {"scenes": scenes})
    assert_refused(reply, "unsupported_media", "scenes[1].picture")
    sound = "data:audio/mpeg;base64," + base64.b64encode(b"#EXTM3U").decode()
    reply = media.post("/v1/videos/compositions", {"scenes": [{"narration": sound}]})
    assert_refused(reply, "unsupported_media", "scenes[0].narration")
    reply = media.post("/v1/videos/compositions", {"scenes": scenes[:1], "music": sound})
    assert_refused(reply, "unsupported_media", "music")


def test_more_bytes_than_a_picture_may_have_are_refused(media: MediaCase) -> None:
    huge = GOOD[:-12] + struct.pack(">I4s", 33 * 2**20, b"teXt") + bytes(33 * 2**20)
    form = {"image": (io.BytesIO(huge), "x.png")}
    reply = media.client.post("/v1/images/variations", data=form, headers=media.key)
    assert_refused(reply, "media_too_large", "image")
    many = {"image": [(io.BytesIO(huge), "x.png") for _ in range(4)]}
    reply = media.client.post("/v1/images/variations", data=many, headers=media.key)
    assert (reply.status_code, reply.json["error"]["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("url", [
    "http://127.0.0.1:1/x.png", "https://169.254.169.254/", "file:///etc/passwd", "ftp://x/y",
    "//example.com/x.png", "data:image/png,plain", "data:image/png;base64,!!!", "data:", "x" * 99,
])  # fmt: skip
def test_no_other_url_is_taken(media: MediaCase, url: str) -> None:
    for value in (url, {"image_url": url}):
        reply = media.post("/v1/images/variations", {"image": value})
        assert (reply.status_code, reply.json["error"]["param"]) == (400, "image")
    assert media.get("/v1/jobs").json["data"] == []


@pytest.mark.parametrize("content", [GOOD, jpeg(10, 20), jpeg(10, 20) + b"\0" * 3_000, webp(9, 9)])
def test_good_pictures_are_read(content: bytes) -> None:
    header = read_picture_header(io.BytesIO(content), param="image")
    assert (header.width, header.height) in {(40, 30), (10, 20), (9, 9)}


def test_what_is_taken_is_what_engines_decode() -> None:
    assert picture_headers.MAX_PIXELS == MAX_INPUT_PIXELS
