"""The pure parts of a composition: time, motion, captions, lines, sound."""

from __future__ import annotations

import json
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.specs.videos import Caption, Motion
from worker.engines.composing.composition import Composer
from worker.engines.composing.cues import Cue, Shown, cues_of, web_vtt
from worker.engines.composing.fonts import Fonts
from worker.engines.composing.lettering import broken, set_lines
from worker.engines.composing.loudness import levels
from worker.engines.composing.motion import chosen_motion, seen
from worker.engines.composing.settings import ComposerSettings
from worker.engines.composing.soundtrack import Soundtrack, Voice, levelled
from worker.engines.composing.timeline import Timeline, eased
from worker.engines.encoding import SAMPLE_RATE
from worker.engines.protocol import Load, Row
from worker.engines.sounds import integrated_loudness

MOTIONS: tuple[Motion, ...] = (
    "none", "zoom_in", "zoom_out", "pan_left", "pan_right", "pan_up",
)  # fmt: skip


@given(
    seconds=st.lists(st.floats(0.01, 4), min_size=1, max_size=5),
    fps=st.integers(1, 60),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_shots_fill_the_video_and_transitions_fit_into_them(
    seconds: list[float], fps: int, data: st.DataObject
) -> None:
    count = len(seconds) - 1
    changes = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    timeline = Timeline(seconds, fps, changes=changes)
    moments = timeline.moments()
    assert [moment.frame for moment in moments] == list(range(timeline.frame_n))
    assert abs(timeline.frame_n - sum(seconds) * fps) <= len(seconds)
    for before, after in pairwise(timeline.shots):
        assert before.end == after.start
        assert after.lead <= (before.end - before.start) // 2
    for moment in moments:
        assert 0 <= moment.shot.progress(moment.frame) <= 1
        assert (moment.coming is None) == (moment.mix == 0)
        if moment.coming:
            assert 0 < moment.mix < 1
            assert 0 <= moment.coming.progress(moment.frame) <= 1
    for change, shot in zip(changes, timeline.shots[1:], strict=True):
        assert change or shot.lead == 0


def test_easing_is_slow_at_both_ends() -> None:
    assert [eased(part) for part in (-1, 0, 0.5, 1, 2)] == [0, 0, 0.5, 1, 1]
    assert eased(0.1) < 0.1
    assert eased(0.9) > 0.9


@given(
    motion=st.sampled_from(MOTIONS),
    progress=st.floats(0, 1),
    seconds=st.floats(0.1, 600),
)
def test_the_camera_never_leaves_the_picture_nor_bends_it(
    motion: Motion, progress: float, seconds: float
) -> None:
    left, top, right, bottom = seen(motion, progress, seconds, (1536, 864))
    assert 0 <= left < right <= 1536 + 1e-6
    assert 0 <= top < bottom <= 864 + 1e-6
    assert (right - left) / (bottom - top) == pytest.approx(16 / 9)
    assert right - left >= 1536 * 0.84


def test_neighbouring_scenes_move_differently() -> None:
    chosen = [chosen_motion("auto", scene) for scene in range(12)]
    assert all(one != other for one, other in pairwise(chosen))
    assert chosen_motion("pan_up", 3) == "pan_up"


def words_of(text: str) -> list[str]:
    """Lines of three words."""
    words = text.split()
    return [" ".join(words[i : i + 3]) for i in range(0, len(words), 3)]


def test_long_sentences_become_several_cues_of_two_lines() -> None:
    text = (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    )
    cues = cues_of([Caption(text=text, start=1.0, end=7.0)], 10.0, 20.0, words_of)
    assert [len(cue.lines) for cue in cues] == [2, 2, 1]
    assert (cues[0].start, cues[-1].end) == (11.0, 17.0)
    assert all(one.end == other.start for one, other in pairwise(cues))
    assert " ".join(line for cue in cues for line in cue.lines) == text
    assert cues[0].end - cues[0].start > cues[2].end - cues[2].start


@given(
    times=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=8),
    until=st.floats(1, 60),
)
def test_cues_never_overlap_and_never_outlast_their_scene(
    times: list[tuple[float, float]], until: float
) -> None:
    captions = [Caption(text="a b c d e f g h", start=a, end=b) for a, b in times]
    cues = cues_of(captions, 0.0, until, words_of)
    assert all(cue.start < cue.end <= until for cue in cues)
    assert all(one.end <= other.start for one, other in pairwise(cues))


def test_short_gaps_are_closed_and_blips_held() -> None:
    captions = [
        Caption(text="a", start=0.0, end=0.1),
        Caption(text="b", start=2.0, end=3.0),
        Caption(text="c", start=3.2, end=4.0),
        Caption(text="", start=4.0, end=5.0),
    ]
    cues = cues_of(captions, 0.0, 9.0, words_of)
    assert [(cue.start, cue.end) for cue in cues] == [(0.0, 0.8), (2.0, 3.2), (3.2, 4.0)]
    shown = Shown(cues)
    assert [bool(shown.at(t)) for t in (0.0, 0.79, 0.8, 2.0, 3.2, 4.0)] == [
        True, True, False, True, True, False,
    ]  # fmt: skip


def test_web_vtt_escapes_what_would_be_markup() -> None:
    cues = [Cue(("a < b & c", "-->"), 3_661.5, 3_662.0004)]
    assert web_vtt(cues) == (
        "WEBVTT\n\n1\n01:01:01.500 --> 01:01:02.000\na &lt; b &amp; c\n--&gt;\n"
    )


def test_each_caption_is_cut_in_a_turn_of_its_own(tmp_path: Path) -> None:
    captions = [{"text": f"Words {n}", "start": n / 40, "end": (n + 1) / 40} for n in range(40)]
    scene = {"seconds": 1.0, "captions": [*captions, captions[0] | {"start": 0.99}]}
    body = {"model": "c", "size": "64x64", "scenes": [scene]}
    load = Load("c", "composer", "", {}, str(tmp_path), "http://plant")
    row = Row(0, "/v1/videos/compositions", json.dumps(body).encode(), "row", {})
    work = Composer(load, ComposerSettings()).begin(row)
    stages = list(takewhile("rendering".__ne__, (advance.stage for advance in work)))
    work.close()
    # An engine that is silent for as long as a whole script takes would be taken for a hung one.
    assert stages == ["reading"] + ["preparing"] * 41


def test_lines_fit_and_are_balanced() -> None:
    fonts = Fonts()
    text = "After three years of work, ferries leave every twenty minutes from the quay"
    font = fonts.font(text, 30)
    lines = broken(text, font, 640)
    widths = [font.getlength(line) for line in lines]
    assert " ".join(lines) == text
    assert len(lines) == 2
    assert max(widths) <= 640
    assert min(widths) > 0.75 * max(widths)
    long = broken("x" * 200, font, 300)
    assert "".join(long) == "x" * 200
    assert max(font.getlength(line) for line in long) <= 300


def test_titles_shrink_and_then_end_in_an_ellipsis() -> None:
    fonts = Fonts()
    short = set_lines("Harbour", fonts, 60, 500, 2)
    longer = set_lines("The harbour reopens after three years of work", fonts, 60, 500, 2)
    endless = set_lines("word " * 30, fonts, 60, 500, 2)
    assert (short.lines, short.font.size) == (("Harbour",), 60)
    assert 30 <= longer.font.size < 60
    assert len(longer.lines) == 2
    assert endless.lines[-1].endswith("…")
    assert endless.width <= 500


def test_letters_that_no_font_has_are_noted(tmp_path: Path) -> None:
    fonts = Fonts(system=(tmp_path,))
    assert fonts.writable("Żółć, Ελλάδα,  Привет\n€5 – “so”…") == "Żółć, Ελλάδα, Привет €5 – “so”…"
    assert not fonts.unwritable
    assert fonts.writable("to 日本 go") == "to go"
    assert fonts.unwritable == {"日", "本"}


def sine(seconds: float, frequency: float, level: float) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


@pytest.mark.parametrize("level", [0.01, 0.1, 0.9])
def test_narrations_are_brought_to_one_loudness_without_clipping(level: float) -> None:
    voice = levelled(sine(2.0, 500, level))
    assert np.abs(voice).max() <= 0.95
    loudness = integrated_loudness(voice, SAMPLE_RATE)
    assert loudness is not None
    assert loudness == pytest.approx(-17 if level > 0.05 else -28, abs=2.5)
    silent = np.zeros(SAMPLE_RATE, np.float32)
    assert not levelled(silent).any()


def test_the_soundtrack_is_the_same_in_any_stretches() -> None:
    voices = [Voice(sine(1.0, 300, 0.3), SAMPLE_RATE), Voice(sine(0.5, 200, 0.3), 3 * SAMPLE_RATE)]
    music = np.repeat(sine(1.3, 900, 0.2)[:, None], 2, axis=1)
    length = 5 * SAMPLE_RATE
    whole = Soundtrack(voices, music, length).read(length)
    pieces = Soundtrack(voices, music, length)
    cut = np.concatenate([pieces.read(until) for until in range(0, length + 1_921, 1_920)])
    assert whole.shape == (length, 2)
    assert np.array_equal(whole, cut)
    assert np.abs(whole).max() < 0.95
    jumps = np.abs(np.diff(whole[:, 0]))
    assert jumps.max() < 0.1  # no click where the music begins again


def test_without_music_silence_is_silent() -> None:
    track = Soundtrack([Voice(sine(0.5, 300, 0.3), SAMPLE_RATE)], None, 2 * SAMPLE_RATE)
    sound = track.read(2 * SAMPLE_RATE)
    assert not sound[:SAMPLE_RATE].any()
    assert sound[SAMPLE_RATE : SAMPLE_RATE + 1_000].any()
    assert not sound[SAMPLE_RATE + SAMPLE_RATE // 2 :].any()


def test_levels_follow_the_voice() -> None:
    voice = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), sine(1.0, 300, 0.3)])
    found = levels(voice, SAMPLE_RATE, 25, 75)
    assert found.shape == (75,)
    assert not found[:25].any()
    assert found[30:50].min() > 0.9
    assert found[50:].tolist() == sorted(found[50:], reverse=True)
    assert found[74] < 0.02
