"""The presenter: a mouth and a light that follow the voice, a name that comes and goes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.integration.video_case import (
    Material,
    composer,
    composition,
    difference,
    frames,
    plain,
    run,
    speech,
)
from worker.engines.composing.faces import find_face
from worker.engines.composing.layout import Layout
from worker.engines.composing.loudness import levels
from worker.engines.composing.presenter import panel_box
from worker.engines.composing.speaking import SpeakingPortrait

FPS = 25
SKIN, LIPS = (222, 176, 148), (168, 72, 78)
MOUTH = (0.5, 0.62)


def portrait(width: int = 400, height: int = 500) -> Image.Image:
    """A face drawn with ellipses; its mouth is at ``MOUTH``."""
    picture = Image.new("RGB", (width, height), (96, 118, 140))
    pen = ImageDraw.Draw(picture)

    def ellipse(x: float, y: float, across: float, down: float, colour: object) -> None:
        box = [(x - across) * width, (y - down) * height, (x + across) * width, (y + down) * height]
        pen.ellipse(box, fill=colour)  # type: ignore[arg-type]

    ellipse(0.5, 1.0, 0.46, 0.24, (40, 52, 80))
    ellipse(0.5, 0.42, 0.27, 0.33, (70, 48, 34))
    ellipse(0.5, 0.46, 0.23, 0.29, SKIN)
    for side in (-0.09, 0.09):
        ellipse(0.5 + side, 0.42, 0.03, 0.014, (40, 40, 50))
    ellipse(*MOUTH, 0.075, 0.014, LIPS)
    return picture


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return Material(tmp_path)


def test_the_mouth_is_found_in_a_portrait_and_in_nothing_else() -> None:
    found = find_face(portrait())
    assert found is not None
    assert abs(found.x - MOUTH[0]) < 0.04
    assert abs(found.y - MOUTH[1]) < 0.04
    assert found.width == pytest.approx(0.46, abs=0.1)
    assert find_face(plain((400, 500), (30, 90, 200))) is None
    assert find_face(plain((400, 500), (90, 160, 70))) is None


def test_the_jaw_opens_with_the_level_and_nothing_else_moves() -> None:
    face = portrait()
    speaking = SpeakingPortrait(face, face.size, find_face(face))
    silent = SpeakingPortrait(face, face.size, None)
    drawn = [np.asarray(speaking.draw(2.0, level), np.int16) for level in (0.0, 0.5, 1.0)]
    swaying = [np.asarray(silent.draw(2.0, level), np.int16) for level in (0.0, 0.5, 1.0)]
    upper = [difference(a[:250], b[:250]) for a, b in zip(drawn, swaying, strict=True)]
    lower = [difference(a[270:420], b[270:420]) for a, b in zip(drawn, swaying, strict=True)]
    assert upper == [0, 0, 0]
    assert lower[0] == 0
    assert 1 < lower[1] < lower[2] / 1.5
    inside = [float(picture[308:336, 185:215].mean()) for picture in drawn]
    assert inside[2] < inside[1] < inside[0]


def test_mouth_and_light_follow_the_voice(material: Material, tmp_path: Path) -> None:
    voice = speech(3.0)
    scene = {
        "picture": material.picture("anna", portrait()),
        "narration": material.sound("voice", voice),
    }
    row = composition(material, [scene], style="presenter", size="480x270")
    shown = frames(run(composer(tmp_path / "spool"), row).video)
    loud = levels(voice, 48_000, FPS, len(shown))
    left, top, width, height = panel_box(Layout(480, 270), aside=False)
    y, x = top + round(MOUTH[1] * height), left + round(MOUTH[0] * width)
    reach = round(0.09 * width)
    mouth = [-float(f[y - 4 : y + 10, x - reach : x + reach].mean()) for f in shown]
    ring = [float(f[top + height // 2, left - 3 : left - 1].mean()) for f in shown]
    assert np.corrcoef(mouth, loud)[0, 1] > 0.75
    assert np.corrcoef(ring, loud)[0, 1] > 0.75


def test_without_a_portrait_bars_move_with_the_voice(material: Material, tmp_path: Path) -> None:
    voice = speech(2.0)
    scene = {"narration": material.sound("voice", voice), "title": "On the air"}
    row = composition(material, [scene], style="presenter")
    shown = frames(run(composer(tmp_path / "spool"), row).video)
    loud = levels(voice, 48_000, FPS, len(shown))
    middle = [float(f[70:99, 158:163].mean()) for f in shown]
    assert np.corrcoef(middle, loud)[0, 1] > 0.75
    title = shown[30][10:64, 20:200, 0]
    assert title.max() > 220  # white: the bars and the card are blue


def test_the_name_slides_in_and_out(material: Material, tmp_path: Path) -> None:
    scene = {"picture": material.picture("grey", plain((320, 180), (90, 90, 90))), "seconds": 9.0}
    row = composition(
        material,
        [scene],
        style="presenter",
        lower_third="Anna Bell",
        lower_third_detail="Reporter",
        fps=10,
    )
    shown = frames(run(composer(tmp_path / "spool"), row).video)
    place = [frame[96:138, 20:60] for frame in shown]
    assert difference(place[0], place[30]) > 12
    assert difference(place[0], place[85]) < 3
    edges = [int((frame[90:140, :4] > 150).sum()) for frame in shown]
    assert max(edges[5:9]) > 0 or difference(place[6], place[30]) > 2  # on its way


def test_one_presenter_goes_on_without_a_transition(material: Material, tmp_path: Path) -> None:
    face = material.picture("anna", portrait())
    scenes = [
        {"picture": face, "narration": material.sound(f"voice{i}", speech(0.7, i))}
        for i in range(2)
    ]
    shown = frames(
        run(composer(tmp_path / "spool"), composition(material, scenes, style="presenter")).video
    )
    steps = [difference(a, b) for a, b in pairwise(shown)]
    assert max(steps) < 6
