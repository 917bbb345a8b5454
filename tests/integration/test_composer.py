"""Compositions, decoded again: lengths, sizes, motion, captions, transitions, sound."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.ids import artifact_id
from tests.integration.video_case import (
    RATE,
    Material,
    audio,
    checks,
    composer,
    composition,
    difference,
    frames,
    lag,
    plain,
    run,
    speech,
    streams,
)
from worker.engines import one_by_one
from worker.engines.composing.timeline import BREATH_SECONDS
from worker.engines.footage import Footage

FPS = 25


@pytest.fixture
def material(tmp_path: Path) -> Material:
    folder = tmp_path / "tenant's files"
    folder.mkdir()
    return Material(folder)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.mark.parametrize("size", ["320x180", "180x320", "240x240"])
def test_a_narrated_scene_is_as_long_as_its_narration(
    material: Material, spool: Path, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_by_one, "STEP_SECONDS", 0.0)
    scene = {
        "picture": material.picture("checks", checks((400, 300))),
        "narration": material.sound("voice", speech(1.4)),
        "captions": [{"text": "One sentence.", "start": 0.0, "end": 1.3}],
    }
    made = run(composer(spool), composition(material, [scene], size=size))
    width, height = map(int, size.split("x"))
    shown = frames(made.video)
    assert len(shown) == round((1.4 + BREATH_SECONDS) * FPS)
    assert shown[0].shape == (height, width, 3)
    assert made.body["seconds"] == pytest.approx(1.4 + BREATH_SECONDS, abs=1.5 / FPS)
    assert (made.body["size"], made.body["fps"]) == (size, FPS)
    assert len(audio(made.video)) / RATE == pytest.approx(made.body["seconds"], abs=0.06)
    assert made.progress[-1].stage == "rendering"
    assert {report.steps for report in made.progress} == {len(shown)}


@pytest.mark.parametrize(
    ("container", "codecs"),
    [("mp4", {"video": "av1", "audio": "aac"}), ("webm", {"video": "vp9", "audio": "opus"})],
)
def test_files_are_described_and_sound_is_in_sync(
    material: Material, spool: Path, container: str, codecs: dict[str, str]
) -> None:
    voices = [speech(0.9, seed) for seed in (1, 2)]
    scenes = [
        {"narration": material.sound(f"voice{i}", voice), "title": f"Part {i}"}
        for i, voice in enumerate(voices)
    ]
    scenes[1]["captions"] = [{"text": "Said & <done>", "start": 0.1, "end": 0.8}]
    row = composition(material, scenes, output_format=container)
    made = run(composer(spool), row)
    assert streams(made.video) == codecs
    sound = audio(made.video)
    start = round((0.9 + BREATH_SECONDS) * FPS) / FPS
    assert abs(lag(sound[: round(start * RATE)], voices[0])) < 0.04
    assert abs(lag(sound, np.pad(voices[1], (round(start * RATE), 0)))) < 0.04
    files = made.files
    assert set(files) == {"video", "thumbnail", "spritesheet", "captions"}
    for described in files.values():
        content = Path(described.path).read_bytes()
        assert Path(described.path).is_relative_to(spool)
        assert described.bytes == len(content)
        assert described.sha256 == hashlib.sha256(content).hexdigest()
        assert described.id == artifact_id("job-0", described.name)
        assert described.role == "video" or described.parent == files["video"].id
    assert files["video"].media_type == f"video/{container}"
    assert files["video"].seconds == pytest.approx(made.body["seconds"])
    for role in ("thumbnail", "spritesheet"):
        with Image.open(files[role].path) as picture:
            assert picture.format == "WEBP"
            assert picture.size == (files[role].width, files[role].height)
            assert picture.convert("L").getextrema()[1] > 60
    assert made.body["url"] == (f"https://plant.example/v1/artifacts/{files['video'].id}/content")
    ids = [made.body[name] for name in ("artifact_id", "thumbnail_id", "spritesheet_id")]
    assert ids == [files[role].id for role in ("video", "thumbnail", "spritesheet")]
    assert made.body["captions_id"] == files["captions"].id
    vtt = Path(files["captions"].path).read_text()
    assert vtt.startswith("WEBVTT\n\n1\n00:00:01.")
    assert "Said &amp; &lt;done&gt;" in vtt


def test_pictures_move_smoothly(material: Material, spool: Path) -> None:
    picture = material.picture("checks", checks((640, 360)))
    scenes = [{"picture": picture, "seconds": 2.0}, {"picture": picture, "seconds": 1.0}]
    scenes[1]["motion"] = "none"
    shown = frames(run(composer(spool), composition(material, scenes, transition="cut")).video)
    moving, still = shown[:50], shown[50:]
    assert difference(moving[0], moving[-1]) > 6
    assert difference(still[0], still[-1]) < 1
    steps = [difference(a, b) for a, b in pairwise(moving)]
    assert min(steps) > 0.02  # sub-pixel: it never stands still for a frame
    assert max(steps) < 8 * float(np.median(steps))


def test_captions_are_burnt_in_when_they_are_heard(material: Material, spool: Path) -> None:
    scene = {
        "picture": material.picture("grey", plain((320, 180), (150, 150, 150))),
        "narration": material.sound("voice", speech(3.0)),
        "captions": [{"text": "Readable words here", "start": 1.0, "end": 2.0}],
        "motion": "none",
    }
    shown = frames(run(composer(spool), composition(material, [scene])).video)
    band = [frame[140:172, 60:260] for frame in shown]
    without, within = band[15], band[37]
    assert difference(without, within) > 20
    assert difference(without, band[23]) < 2
    assert difference(without, band[-3]) < 2
    assert within.min() < 90
    assert within.max() > 215  # dark box, light letters
    rest = [frame[:130] for frame in shown]
    assert difference(rest[15], rest[37]) < 2


@pytest.mark.parametrize("kind", ["crossfade", "slide", "wipe", "cut"])
def test_transitions_lead_from_one_picture_to_the_next(
    material: Material, spool: Path, kind: str
) -> None:
    scenes = [
        {"picture": material.picture("red", plain((320, 180), (200, 20, 20))), "seconds": 1.4},
        {"picture": material.picture("blue", plain((320, 180), (20, 20, 200))), "seconds": 1.0},
    ]
    shown = frames(run(composer(spool), composition(material, scenes, transition=kind)).video)
    red, blue = shown[5], shown[-5]
    assert len(shown) == 60
    assert abs(int(red[90, 160, 0]) - 200) < 12
    assert abs(int(blue[90, 160, 2]) - 200) < 12
    amount = [float(f[:, :, 2].mean() - f[:, :, 0].mean()) for f in shown]
    if kind == "cut":
        assert difference(shown[34], red) < 4
        assert difference(shown[35], blue) < 4
        return
    middle = shown[28]
    assert difference(middle, red) > 25
    assert difference(middle, blue) > 25
    assert difference(shown[35], blue) < 6  # whole when its narration begins
    assert all(after >= before - 3 for before, after in pairwise(amount))
    sides = middle[90, 20, 2] - middle[90, 20, 0], middle[90, 300, 2] - middle[90, 300, 0]
    expected = {"crossfade": 0, "slide": 1, "wipe": -1}[kind]
    assert np.sign(round((sides[1] - sides[0]) / 100)) == expected


def test_music_is_softer_under_speech_and_fades_out(material: Material, spool: Path) -> None:
    times = np.arange(round(2.3 * RATE)) / RATE
    tone = (0.2 * np.sin(2 * np.pi * 3_000 * times)).astype(np.float32)
    voice = np.zeros(2 * RATE, np.float32)
    low = np.arange(RATE) / RATE
    voice[:RATE] = 0.3 * np.sin(2 * np.pi * 200 * low)
    scenes = [
        {"seconds": 2.0, "title": "Before"},
        {"narration": material.sound("voice", voice[:RATE])},
        {"seconds": 4.0, "title": "After"},
    ]
    row = composition(material, scenes, music=material.sound("tone", tone))
    made = run(composer(spool), row)
    sound = audio(made.video)

    def music_at(seconds: float) -> float:
        piece = sound[round((seconds - 0.1) * RATE) : round((seconds + 0.1) * RATE)]
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
        return float(spectrum[round(3_000 * 0.2) - 3 : round(3_000 * 0.2) + 4].max())

    under, between, last = music_at(2.6), music_at(1.2), music_at(made.body["seconds"] - 0.15)
    assert 0.12 < under / between < 0.35  # about 13 dB
    assert last < 0.2 * between
    assert music_at(5.0) > 0.8 * between  # the tone of 2.3 s was repeated


def test_a_logo_keeps_its_transparency_in_the_corner(material: Material, spool: Path) -> None:
    logo = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    logo.paste((250, 240, 20, 255), (0, 0, 200, 200))
    scene = {"picture": material.picture("blue", plain((320, 180), (20, 20, 160))), "seconds": 1}
    row = composition(material, [scene], logo=material.picture("logo", logo))
    frame = frames(run(composer(spool), row).video)[10]
    yellow = np.argwhere((frame[..., 0] > 150) & (frame[..., 1] > 150))
    top, left = yellow.min(axis=0)
    bottom, right = yellow.max(axis=0)
    assert bottom - top <= 0.1 * 180
    assert left > 0.75 * 320
    assert right < 0.95 * 320 - (right - left) * 0.8  # its right half is transparent
    assert top > 0.03 * 180


def test_frames_depend_on_the_row_alone(
    material: Material, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the work falls into steps, every frame is the same, bit for bit."""
    digests: list[Any] = []
    add = Footage.add

    def noted(self: Footage, frame: Image.Image) -> None:
        digests[-1].update(frame.tobytes())
        add(self, frame)

    monkeypatch.setattr(Footage, "add", noted)
    scenes = [
        {"title": "A card", "seconds": 0.8},
        {
            "picture": material.picture("checks", checks((400, 300))),
            "narration": material.sound("voice", speech(0.5)),
        },
    ]
    steps = []
    for step_seconds in (0.0, 1e9):
        monkeypatch.setattr(one_by_one, "STEP_SECONDS", step_seconds)
        digests.append(hashlib.sha256())
        steps.append(run(composer(spool), composition(material, scenes)).steps)
    assert steps[0] > 40
    assert steps[1] == 1
    assert digests[0].hexdigest() == digests[1].hexdigest()


def test_cancelling_takes_effect_within_a_step_and_leaves_nothing(
    material: Material, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_by_one, "STEP_SECONDS", 0.0)
    engine: Any = composer(spool)
    scene = {"picture": material.picture("checks", checks((320, 180))), "seconds": 60.0}
    engine.submit(1, 1, composition(material, [scene]))
    engine.submit(2, 1, composition(material, [{"title": "Next", "seconds": 0.2}], index=1))
    reports = []
    while not list(spool.iterdir()):
        assert engine.step() == []
        reports += engine.progress()
    assert 0 < reports[-1].step < reports[-1].steps == 1500
    engine.cancel(1, 1)
    assert not list(spool.iterdir())
    assert (engine.active_rows, engine.waiting_rows) == (0, 1)
    results: list[Any] = []
    while engine.busy:
        results += engine.step()
    assert [(r.shard, r.status) for r in results] == [(2, 200)]
    assert json.loads(results[0].body)["seconds"] == pytest.approx(0.2)
