"""What a composer does not take: bombs, wrong media, sizes and lengths, a missing extra."""

from __future__ import annotations

import builtins
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.video_case import Material, checks, composer, composition, run, speech
from worker.engines.base import EngineFailed
from worker.engines.composer import create
from worker.engines.protocol import Load, Row


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return Material(tmp_path)


def bomb() -> bytes:
    """A PNG of a few kilobytes that claims 900 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    side = (30_000).to_bytes(4, "big")
    head = chunk(b"IHDR", side + side + bytes((8, 2, 0, 0, 0)))
    body = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def refused(material: Material, spool: Path, scenes: list[dict[str, Any]], **more: Any) -> Any:
    settings = more.pop("settings", {})
    made = run(composer(spool, **settings), composition(material, scenes, **more))
    assert made.result.status == 400
    assert not list(spool.iterdir())
    return made.body["error"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(bomb(), "pixels"), (b"GIF89a....", "not a picture"), (b"\x89PNG\r\n\x1a\n", "picture")],
)
def test_bad_pictures_are_refused(
    material: Material, tmp_path: Path, content: bytes, says: str
) -> None:
    good = material.picture("good", checks((64, 64)))
    bad = material.file("bad", content)
    scenes = [{"picture": good, "seconds": 1.0}, {"picture": bad, "seconds": 1.0}]
    error = refused(material, tmp_path / "spool", scenes)
    assert error["param"] == "scenes[1].picture"
    assert says in error["message"]


def test_a_picture_is_no_narration(material: Material, tmp_path: Path) -> None:
    picture = material.picture("good", checks((64, 64)))
    error = refused(material, tmp_path / "spool", [{"narration": picture}])
    assert (error["param"], error["type"]) == ("scenes[0].narration", "invalid_request_error")


def test_the_whole_may_not_be_longer_than_the_catalog_allows(
    material: Material, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    voice = material.sound("voice", speech(1.0))
    scenes = [{"narration": voice}, {"narration": voice}]
    error = refused(material, spool, scenes, settings={"max_seconds": 2.5})
    assert error["param"] == "scenes"
    assert "2.5 seconds" in error["message"]
    long = material.sound("long", np.zeros(48_000 * 3, np.float32))
    error = refused(material, spool, [{"narration": long}], settings={"max_seconds": 2.5})
    assert error["param"] == "scenes[0].narration"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"size": "321x180"}, "size"),
        ({"size": "4096x2160"}, "size"),
        ({"size": "32x32"}, "size"),
        ({"size": "64x8706"}, "size"),
        ({"lower_fourth": "x"}, "lower_fourth"),
        ({"fps": 61}, "fps"),
        ({"transition": "star"}, "transition"),
    ],
)
def test_bodies_are_refused_by_name(
    material: Material, tmp_path: Path, more: dict[str, Any], param: str
) -> None:
    error = refused(material, tmp_path / "spool", [{"seconds": 1.0}], **more)
    assert error["param"] == param


def test_a_scene_needs_a_length(material: Material, tmp_path: Path) -> None:
    error = refused(material, tmp_path / "spool", [{"title": "No length"}])
    assert "seconds" in error["message"]


def test_other_endpoints_and_missing_inputs_are_refused(material: Material, tmp_path: Path) -> None:
    engine: Any = composer(tmp_path / "spool")
    body = json.dumps({"model": "composer", "prompt": "A film"}).encode()
    answer = engine.submit(1, 1, Row(0, "/v1/videos", body, "job-0"))
    assert answer.status == 400
    error = refused(material, tmp_path / "spool", [{"picture": "art_gone", "seconds": 1.0}])
    assert "art_gone" in error["message"]


def test_pictures_come_by_data_url_too(material: Material, tmp_path: Path) -> None:
    import base64

    encoded = io.BytesIO()
    checks((320, 180)).save(encoded, "JPEG")
    url = "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
    spool = tmp_path / "spool"
    made = run(composer(spool), composition(material, [{"picture": url, "seconds": 0.2}]))
    assert made.result.status == 200
    broken = [{"picture": "data:image/png;base64,AAA", "seconds": 0.2}]
    answer = run(composer(spool), composition(material, broken))
    assert answer.body["error"]["param"] == "scenes[0].picture"


@pytest.mark.parametrize("missing", ["av", "PIL"])
def test_without_the_extra_it_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    load = Load("composer", "composer", "", {}, str(tmp_path))
    with pytest.raises(EngineFailed, match="extra 'video'") as caught:
        create(load, lambda fraction, detail: None)
    assert caught.value.code == "video_extra_missing"


@pytest.mark.parametrize(
    "settings",
    [{"max_pixel": 1}, {"default_fps": 0}, {"default_size": "big"}, {"fonts": ["/no/such.ttf"]}],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(EngineFailed) as caught:
        create(Load("c", "composer", "", settings, str(tmp_path)), lambda fraction, detail: None)
    assert caught.value.code == "bad_settings"
    assert next(iter(settings)) in caught.value.message


def test_the_composer_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from worker.engines.registry import create_engine\n"
        "from worker.engines.protocol import Load\n"
        f"create_engine(Load('c', 'composer', '', {{}}, {str(tmp_path)!r}), lambda f, d: None)\n"
        "print([name for name in ('torch', 'transformers', 'diffusers') if name in sys.modules])\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("size", ["320x180", "64x64"])
def test_words_without_a_letter_that_a_font_has_are_none(
    material: Material, tmp_path: Path, size: str
) -> None:
    scenes = [
        {"picture": material.picture("a", checks((64, 64))), "title": "\U0010fffd", "seconds": 0.2},
        {"title": " ", "subtitle": "\U0010fffd", "seconds": 0.2},
        {"title": "Boats", "subtitle": "\n", "seconds": 0.2},
    ]
    more: dict[str, Any] = {"size": size, "lower_third": " ", "lower_third_detail": "\U0010fffd"}
    for style in ("slides", "presenter"):
        made = run(composer(tmp_path / "spool"), composition(material, scenes, style=style, **more))
        assert made.result.status == 200, made.body


def test_letters_that_no_font_has_are_left_out_and_told(material: Material, tmp_path: Path) -> None:
    scenes = [{"title": "Grüße, Łódź \U0010fffd", "seconds": 0.2}]
    made = run(composer(tmp_path / "spool"), composition(material, scenes))
    assert len(made.body["warnings"]) == 1
    assert "\U0010fffd" in made.body["warnings"][0]
    assert "ü" not in made.body["warnings"][0]
    with Image.open(made.files["thumbnail"].path) as picture:
        assert picture.convert("L").getextrema()[1] > 150
