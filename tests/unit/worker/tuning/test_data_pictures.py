"""Fine-tuning data that are pictures: captions, labels, data URLs, and the child that decodes."""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.tuning.data_case import (
    SMALL,
    found,
    jsonl,
    judge,
    picture,
    pictures,
    problems,
    source,
    zipped,
)
from worker.tuning.data.example import Example, Refused
from worker.tuning.data.formats import read_items
from worker.tuning.data.images import DecoderMissing, Pictures


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def rows_of(recipe: Any, data: bytes, name: str = "a.zip") -> list[tuple[str | None, Any]]:
    """(member, caption or label) of every example; everything must be one."""
    items = list(read_items(recipe, source(data, name), SMALL))
    assert all(isinstance(item, Example) for item in items), items
    return [
        (item.member, item.row.get("caption", item.row.get("label")))
        for item in items
        if isinstance(item, Example)
    ]


# --- captions -----------------------------------------------------------------------------------


def test_captions_lie_beside_their_pictures() -> None:
    members: dict[str, bytes | str] = {"in/a.png": picture(), "in/b.JPG": picture(format="JPEG")}
    captions: dict[str, bytes | str] = {"in/a.txt": "\ufeffa red dot\n", "in/b.txt": "b"}
    assert rows_of("text_to_image", zipped(members | captions)) == [
        ("in/a.png", "a red dot"),
        ("in/b.JPG", "b"),
    ]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_captions_may_be_listed(form: str) -> None:
    rows = [("a.png", 'a "red", dot'), ("./more/b.webp", "b")]
    listed = (
        jsonl({"file_name": name, "text": text} for name, text in rows)
        if form == "jsonl"
        else b'text;file_name\n"a ""red"", dot";a.png\nb;./more/b.webp\n'
    )
    members: dict[str, bytes | str] = {
        "set/a.png": picture(),
        f"set/metadata.{form}": listed,
        "set/more/b.webp": picture(format="WEBP"),
    }
    assert rows_of("text_to_image", zipped(members)) == [
        ("set/a.png", 'a "red", dot'),
        ("set/more/b.webp", "b"),
    ]


def test_pictures_without_caption_and_captions_without_picture_are_named() -> None:
    members = pictures(10) | {f"{n:02}.txt": f"picture {n}" for n in range(10)}
    members |= {"lost.txt": "nothing", "bare.png": picture(50), "mute.png": picture(51)}
    members |= {"mute.txt": " \n", "odd.png": picture(52), "odd.txt": b"\xff"}
    assert sorted(problems("text_to_image", zipped(members)), key=str) == [
        (None, "empty_content", "mute.png"),
        (None, "invalid_encoding", "odd.png"),
        (None, "missing_caption", "bare.png"),
        (None, "missing_image", "lost.txt"),
    ]


def test_lines_of_the_list_are_judged_with_their_numbers() -> None:
    names = list(pictures(10))
    listed = [json.dumps({"file_name": name, "text": name}) for name in names]
    listed[2:2] = [
        '{"file_name": "gone.png", "text": "a"}',
        '{"file_name": "00.png", "text": "again"}',
        '{"file_name": "more.png"}',
        '{"file_name": "more.png", "text": ""}',
        "{",
    ]
    members = pictures(10) | {"more.png": picture(60), "metadata.jsonl": "\n".join(listed)}
    examined = judge("text_to_image", zipped(members), "a.zip")
    assert found(examined) == [
        (4, "duplicate_file_name", "file_name"),
        (5, "missing_required_parameter", "text"),
        (6, "empty_content", "text"),
        (7, "invalid_json_line", None),
        (None, "missing_caption", "more.png"),
        (3, "missing_image", "file_name"),
    ]
    assert all("metadata.jsonl" in error.message for error in examined.errors)


def test_there_is_one_list() -> None:
    members = pictures(10) | {"metadata.jsonl": "", "b/metadata.csv": ""}
    assert problems("text_to_image", zipped(members)) == [
        (None, "duplicate_member", "b/metadata.csv")
    ]


# --- labels -------------------------------------------------------------------------------------


def test_folders_are_labels_and_one_around_all_is_none() -> None:
    members = pictures(2, "set/cats/") | pictures(1, "set/dogs/")
    assert rows_of("gan", zipped(members)) == [
        ("set/cats/00.png", "cats"),
        ("set/cats/01.png", "cats"),
        ("set/dogs/00.png", "dogs"),
    ]
    assert rows_of("diffusion", zipped(pictures(2, "set/"))) == [
        ("set/00.png", None),
        ("set/01.png", None),
    ]


def test_pictures_around_the_folders_have_no_label() -> None:
    members = pictures(6, "cats/") | pictures(6, "dogs/") | {"stray.png": picture(70)}
    assert problems("gan", zipped(members)) == [(None, "missing_label", "stray.png")]


def test_labels_may_be_listed() -> None:
    members = pictures(2) | {"metadata.csv": "file_name,label\n00.png,7\n01.png,zwölf\n"}
    assert rows_of("vae", zipped(members)) == [("00.png", "7"), ("01.png", "zwölf")]


# --- lines --------------------------------------------------------------------------------------


def test_lines_hold_pictures_as_data_urls() -> None:
    rows = [{"image": data_url(picture(n)), "text": f"picture {n}"} for n in range(11)] + [
        {"image": data_url(picture(20, (70, 50), "JPEG"), "image/jpeg"), "text": "wide"}
    ]
    examined = judge("text_to_image", jsonl(rows))
    assert (examined.bad_lines, examined.format) == (0, "jsonl")
    assert examined.examples + examined.validation_examples == 12
    assert examined.sides == [{"up_to": 8, "examples": 11}, {"up_to": 64, "examples": 1}]


NO_PICTURES: list[tuple[Any, str]] = [
    (7, "invalid_request"),
    ("", "empty_content"),
    ("https://example.com/a.png", "invalid_image"),
    ("file:///etc/passwd", "invalid_image"),
    ("data:image/svg+xml;base64,AAAA", "invalid_image"),
    ("data:image/png,AAAA", "invalid_image"),
    ("data:image/png;base64,A?", "invalid_image"),
    (data_url(b"not a picture"), "invalid_image"),
    (data_url(picture()[:-30]), "invalid_image"),
    (data_url(picture(1, (50, 50))[:90]), "invalid_image"),
]


def test_what_is_no_picture_is_named() -> None:
    rows = [{"image": data_url(picture(n)), "label": "a"} for n in range(11)]
    rows[3:3] = [{"image": image, "label": "a"} for image, _ in NO_PICTURES]
    examined = judge("diffusion", jsonl(rows))
    expected = [(4 + place, code) for place, (_, code) in enumerate(NO_PICTURES)]
    assert [(line, code) for line, code, _ in found(examined)] == expected


def test_all_lines_have_labels_or_none_has() -> None:
    rows: list[dict[str, Any]] = [{"image": data_url(picture(n))} for n in range(11)]
    assert problems("gan", jsonl(rows), "data.jsonl") == []
    rows[5]["label"] = "a"
    assert problems("gan", jsonl(rows), "data.jsonl") == [(6, "mixed_formats", "label")]


# --- the child ----------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 10_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_huge_picture_is_refused_by_its_header() -> None:
    with Pictures() as decoder:
        for size in ((60_000, 60_000), (2**31 - 1, 1)):
            with pytest.raises(Refused) as refused:
                decoder.check(bomb(*size))
            assert refused.value.code == "invalid_image"
            assert "pixels" in refused.value.message
        assert decoder.check(picture(1, (9, 7))) == (9, 7)


def test_written_pictures_are_plain_upright_and_bounded(tmp_path: Path) -> None:
    import io

    from PIL import Image

    turned, clear = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # held a quarter turn
    Image.new("RGB", (40, 20), "red").save(turned, "JPEG", exif=exif)
    Image.new("RGBA", (5, 5), (255, 0, 0, 0)).save(clear, "PNG")
    path = tmp_path / "a picture.png"
    with Pictures() as decoder:
        assert decoder.convert(turned.getvalue(), path) == (20, 40)
        with Image.open(path) as written:
            assert (written.format, written.mode, written.size) == ("PNG", "RGB", (20, 40))
            assert not written.getexif()
        decoder.convert(clear.getvalue(), path)
        with Image.open(path) as written:
            assert written.getpixel((2, 2)) == (255, 255, 255)
        assert decoder.convert(picture(1, (3_000, 1_500)), path) == (3_000, 1_500)
        with Image.open(path) as written:
            assert written.size == (2_048, 1_024)


def test_a_child_that_dies_is_replaced() -> None:
    with Pictures() as decoder:
        assert decoder.check(picture()) == (8, 6)
        child = decoder._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert decoder.check(picture()) == (8, 6)
        assert decoder._child is not child


def test_a_picture_that_hangs_its_decoder_is_refused(tmp_path: Path) -> None:
    stuck = tmp_path / "stuck"
    stuck.write_text("#!/bin/sh\nexec sleep 600\n")
    stuck.chmod(0o755)
    with Pictures(seconds=0.1, python=str(stuck)) as decoder:
        with pytest.raises(Refused) as refused:
            decoder.check(picture())
        assert refused.value.code == "invalid_image"
        assert decoder._child is None


def test_without_pillow_it_is_the_workers_fault(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text("#!/bin/sh\nexit 3\n")
    bare.chmod(0o755)
    with Pictures(python=str(bare)) as decoder, pytest.raises(DecoderMissing):
        decoder.check(picture())


def test_the_child_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_SIGNING_KEY", "a secret")
    with Pictures() as decoder:
        decoder.check(picture())
        assert decoder._child is not None
        environment = Path(f"/proc/{decoder._child.pid}/environ").read_bytes()
    assert b"secret" not in environment


def test_judging_imports_neither_pillow_nor_torch() -> None:
    code = (
        "import sys, worker.upkeep.tuning_data, worker.tuning.data.materialise\n"
        "print([name for name in ('PIL', 'torch', 'diffusers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).resolve().parents[4],
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
