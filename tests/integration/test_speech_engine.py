"""The speech engine with hibari's voice: what it delivers, how it joins, how it behaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.ids import artifact_id
from tests.integration.speech_case import SPEECH, body_of, error_of, load, row, run
from worker.engines.base import EngineFailed, ReportsProgress
from worker.engines.protocol import Row, RowResult
from worker.engines.sounds import decode_sound, integrated_loudness, true_peak
from worker.engines.speech import SpeechEngine

pytest.importorskip("hibari")

Samples = NDArray[np.float32]
RATE = 24_000
STORY = (
    "The salt breeze came across from the sea. Help the woman get back to her feet! "
    "Is it easy to tell the depth of a well?\n\n"
    "These days, a chicken leg is a rare dish. Rice is often served in round bowls."
)
PAUSES = [0.35, 0.35, 0.75, 0.35]


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("the spool")


@pytest.fixture(scope="module")
def engine(spool: Path) -> SpeechEngine:
    return load("hibari", spool, threads=2)


@pytest.fixture(scope="module")
def story(engine: SpeechEngine) -> RowResult:
    return run(engine, row(0, STORY, seed=1))[0]


def sound_of(result: RowResult) -> Samples:
    assert result.status == 200, result.body
    return decode_sound(Path(result.files[0].path)).mono


def edges_of(result: RowResult) -> list[tuple[int, int]]:
    """Where each sentence begins and ends, in samples."""
    times = body_of(result)["sentences"]
    return [(round(item["start"] * RATE), round(item["end"] * RATE)) for item in times]


# --- what is delivered ------------------------------------------------------------------------


def test_the_body_and_the_files(story: RowResult, spool: Path) -> None:
    body = body_of(story)
    sound, waveform = story.files
    assert {name: body[name] for name in ("object", "model", "voice", "media_type")} == {
        "object": "audio.speech",
        "model": "voice",
        "voice": "heart",
        "media_type": "audio/wav",
    }
    assert body["artifact_id"] == sound.id == artifact_id("job_1-0", "speech.wav")
    assert body["url"] == f"http://plant.test/v1/artifacts/{sound.id}/content"
    assert body["sample_rate"] == RATE
    assert (sound.name, sound.role, sound.parent) == ("speech.wav", "audio", None)
    assert (waveform.name, waveform.role) == ("speech.waveform.png", "waveform")
    assert waveform.parent == sound.id
    assert {Path(file.path).parent for file in story.files} == {spool}
    with Image.open(waveform.path) as picture:
        assert picture.size == (waveform.width, waveform.height)
    assert sound.provenance["seed"] == 1
    assert sound.provenance["input"] == STORY
    assert sound.provenance["fingerprint"].startswith("fp_")


def test_times_and_pauses_add_up_to_the_file(story: RowResult) -> None:
    body = body_of(story)
    times = body["sentences"]
    assert [item["text"] for item in times] == [
        "The salt breeze came across from the sea.",
        "Help the woman get back to her feet!",
        "Is it easy to tell the depth of a well?",
        "These days, a chicken leg is a rare dish.",
        "Rice is often served in round bowls.",
    ]
    spoken = sum(item["end"] - item["start"] for item in times)
    assert spoken + sum(PAUSES) + 0.05 + 0.2 == pytest.approx(body["seconds"], abs=0.01)
    assert len(sound_of(story)) / RATE == pytest.approx(body["seconds"], abs=0.001)


def test_between_sentences_there_is_silence_of_the_right_length(story: RowResult) -> None:
    sound, edges = sound_of(story), edges_of(story)
    for (_, end), (start, _), pause in zip(edges, edges[1:], PAUSES, strict=False):
        assert (start - end) / RATE == pytest.approx(pause, abs=0.002)
        assert float(np.abs(sound[end + 20 : start - 20]).max()) == 0.0
    for start, end in edges:
        reach = round(0.1 * RATE)
        assert float(np.abs(sound[start : start + reach]).max()) > 0.01
        assert float(np.abs(sound[end - reach : end]).max()) > 0.01


def test_joins_do_not_click(story: RowResult) -> None:
    sound, edges = sound_of(story), edges_of(story)
    jumps = np.abs(np.diff(sound))
    reach = round(0.005 * RATE)
    at_joins = [
        float(jumps[max(0, edge - reach) : edge + reach].max()) for pair in edges for edge in pair
    ]
    inside = min(float(jumps[start + reach : end - reach].max()) for start, end in edges)
    assert max(at_joins) < 0.25 * inside


def test_loudness_and_peaks_are_as_promised(story: RowResult) -> None:
    sound = sound_of(story)
    assert integrated_loudness(sound, RATE) == pytest.approx(-16, abs=0.5)
    assert body_of(story)["loudness_lufs"] == pytest.approx(
        integrated_loudness(sound, RATE), abs=0.05
    )
    assert true_peak(sound, RATE) <= 10 ** (-0.9 / 20)


@pytest.mark.parametrize(
    ("wanted", "media_type", "rate"),
    [
        ("mp3", "audio/mpeg", 24_000),
        ("opus", "audio/ogg", 48_000),
        ("flac", "audio/flac", 24_000),
        ("wav", "audio/wav", 24_000),
    ],
)
def test_formats(engine: SpeechEngine, wanted: str, media_type: str, rate: int) -> None:
    result = run(engine, row(0, "Help the woman.", response_format=wanted))[0]
    body = body_of(result)
    assert (body["media_type"], body["sample_rate"]) == (media_type, rate)
    sound = decode_sound(Path(result.files[0].path))
    assert sound.rate == rate
    assert sound.seconds == pytest.approx(body["seconds"], abs=0.1)
    assert true_peak(sound.mono, rate) < 1.0


def test_raw_samples_in_any_rate(engine: SpeechEngine) -> None:
    result = run(engine, row(0, "Help.", response_format="pcm", sample_rate=16_001))[0]
    body = body_of(result)
    assert body["sample_rate"] == 16_001
    assert Path(result.files[0].path).stat().st_size / 2 / 16_001 == pytest.approx(
        body["seconds"], abs=0.001
    )


def test_the_same_seed_gives_the_same_bytes_whatever_the_company(engine: SpeechEngine) -> None:
    alone = run(engine, row(0, STORY, seed=1))[0]
    company = run(engine, row(0, STORY, seed=1), row(1, STORY, seed=2), row(2, "Hello."))
    assert company[0].files[0].sha256 == alone.files[0].sha256
    assert company[1].files[0].sha256 != alone.files[0].sha256


def test_without_a_seed_a_repeated_row_sounds_the_same(engine: SpeechEngine) -> None:
    first, second = (run(engine, row(4, "Hello there."))[4] for _ in range(2))
    other = run(engine, row(5, "Hello there."))[5]
    assert first.files[0].sha256 == second.files[0].sha256 != other.files[0].sha256


@pytest.mark.parametrize("speed", [0.5, 1.25, 4.0])
def test_speed(engine: SpeechEngine, story: RowResult, speed: float) -> None:
    edges, plain = edges_of(run(engine, row(0, STORY, speed=speed, seed=1))[0]), edges_of(story)
    for (start, end), (first, last) in zip(edges, plain, strict=True):
        assert (last - first) / (end - start) == pytest.approx(speed, rel=0.12)
    assert (plain[-1][1] - plain[0][0]) / (edges[-1][1] - edges[0][0]) == pytest.approx(
        speed, rel=0.06
    )


# --- how it behaves ---------------------------------------------------------------------------


def test_progress_counts_sentences(engine: SpeechEngine) -> None:
    assert isinstance(engine, ReportsProgress)
    assert engine.submit(1, 1, row(3, STORY)) is None
    reports = []
    while engine.busy:
        engine.step()
        reports += engine.progress()
    steps = [report.step for report in reports]
    assert steps == sorted(set(steps))
    assert {(report.index, report.steps) for report in reports} == {(3, 6)}
    assert reports[-1].step == 5
    assert reports[-1].stage == "encoding"


def test_a_short_row_does_not_wait_for_a_long_one(engine: SpeechEngine) -> None:
    engine.submit(1, 1, row(0, STORY * 6))
    engine.submit(1, 1, row(1, "Hello."))
    order = []
    while engine.busy:
        order += [result.index for result in engine.step()]
    assert order == [1, 0]


def test_a_cancelled_shard_says_nothing_more_and_leaves_nothing(
    engine: SpeechEngine, spool: Path
) -> None:
    before = set(spool.iterdir())
    for index in range(6):
        engine.submit(7, 1, row(index, STORY * 2, response_format="mp3"))
    engine.submit(8, 1, row(0, "Hello."))
    for _ in range(8):
        engine.step()
    engine.cancel(7, 1)
    results = []
    while engine.busy:
        results += engine.step()
    assert {result.shard for result in results} <= {8}
    files = {Path(file.path) for result in results for file in result.files}
    assert set(spool.iterdir()) - before <= files | before


def test_cancel_while_a_row_is_being_encoded_removes_its_file(
    engine: SpeechEngine, spool: Path
) -> None:
    before = set(spool.iterdir())
    engine.submit(9, 1, row(0, STORY * 6, response_format="mp3"))
    while not any(path not in before for path in spool.iterdir()):
        engine.step()
    engine.cancel(9, 1)
    while engine.busy:
        assert engine.step() == []
    assert set(spool.iterdir()) == before


def test_long_texts_leave_the_memory(engine: SpeechEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is spoken goes to a file of the spool, which even a crash can't leave behind."""
    monkeypatch.setattr("worker.engines.speech.rows._IN_MEMORY_BYTES", 100_000)
    result = run(engine, row(0, STORY, seed=1))[0]
    assert len(sound_of(result)) * 4 > 100_000
    assert result.files[0].sha256 == run(engine, row(0, STORY, seed=1))[0].files[0].sha256


def test_an_overlong_sentence_is_spoken_in_clauses(engine: SpeechEngine) -> None:
    sentence = ", ".join(["the winter was cold and long"] * 14) + "."
    body = body_of(run(engine, row(0, sentence))[0])
    assert len(body["sentences"]) == 2
    gap = body["sentences"][1]["start"] - body["sentences"][0]["end"]
    assert gap == pytest.approx(0.12, abs=0.002)


# --- what is refused --------------------------------------------------------------------------


def test_an_unknown_voice_is_refused_and_the_voices_are_listed(engine: SpeechEngine) -> None:
    error = error_of(run(engine, row(0, "Hello.", voice="alloy"))[0])
    assert (error["param"], error["code"]) == ("voice", "invalid_request")
    assert "heart" in error["message"]


@pytest.mark.parametrize("text", ["…", "😀 🎉", " - \n\n * ", "***"])
def test_a_text_without_words_is_refused(engine: SpeechEngine, text: str) -> None:
    error = error_of(run(engine, row(0, text))[0])
    assert (error["param"], error["code"]) == ("input", "invalid_request")


def test_an_mp3_of_a_rate_that_mp3_has_not_is_refused(engine: SpeechEngine) -> None:
    error = error_of(run(engine, row(0, "Hi.", response_format="mp3", sample_rate=20_000))[0])
    assert error["param"] == "sample_rate"
    assert "22050" in error["message"]


def test_another_endpoint_is_refused(engine: SpeechEngine) -> None:
    body = {"model": "voice", "input": "a"}
    result = run(engine, Row(0, "/v1/embeddings", json.dumps(body).encode(), id="job_1-0"))[0]
    assert "/v1/embeddings" in error_of(result)["message"]
    assert SPEECH not in error_of(result)["message"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"voices": [{"id": "nobody"}]}, "nobody not on this machine; it has heart"),
        ({"loudness": -16}, "loudness"),
        ({"threads": 0}, "threads"),
    ],
)
def test_bad_settings(spool: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineFailed, match=message) as failed:
        load("hibari", spool, **settings)
    assert failed.value.code == "bad_settings"


def test_the_engine_says_what_it_is(engine: SpeechEngine) -> None:
    assert engine.detail["backend"] == "hibari"
    assert "heart" in engine.detail["voices"]
    assert engine.resident_bytes > 5_000_000
    assert engine.capacity >= 4
