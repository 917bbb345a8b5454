"""The fake engine's pictures, sounds and videos: small, real, and the same on every attempt."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import wave
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared.ids import artifact_id
from worker.engines import fake_files
from worker.engines.fake import FakeEngine, FakeSettings
from worker.engines.protocol import Row, RowResult

IMAGES = "/v1/images/generations"
SPEECH = "/v1/audio/speech"
URL = "https://plant.example"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def engine(spool: Path, clock: Clock | None = None, **settings: Any) -> FakeEngine:
    return FakeEngine(
        "m",
        FakeSettings(**settings),
        spool=str(spool),
        public_url=URL,
        clock=clock or Clock(),
        nap=lambda _: None,
    )


def row(endpoint: str = IMAGES, inputs: dict[str, str] | None = None, **body: Any) -> Row:
    return Row(0, endpoint, json.dumps({"model": "m"} | body).encode(), "job_1-0", inputs or {})


def run(subject: FakeEngine, given: Row) -> RowResult:
    assert subject.submit(1, 1, given) is None
    (result,) = subject.step()
    return result


def body_of(result: RowResult) -> dict[str, Any]:
    assert result.status == 200, result.body
    return dict(json.loads(result.body))


def test_a_picture_and_its_thumbnail_are_real(tmp_path: Path) -> None:
    result = run(engine(tmp_path), row(prompt="a fox", size="70x30", seed=5))
    picture, thumbnail = result.files
    for file in result.files:
        data = Path(file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert file.id == artifact_id("job_1-0", file.name)
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            assert opened.size == (file.width, file.height) == (70, 30)
            assert Image.MIME[str(opened.format)] == file.media_type
    assert (picture.role, thumbnail.role, thumbnail.parent) == ("image", "thumbnail", picture.id)
    assert body_of(result) == {
        "created": 1_700_000_000,
        "model": "m",
        "data": [
            {
                "artifact_id": picture.id,
                "url": f"{URL}/v1/artifacts/{picture.id}/content",
                "seed": 5,
            }
        ],
        "size": "70x30",
        "output_format": "png",
        "steps": 4,
        "usage": {"input_tokens": 2, "output_tokens": 0, "total_tokens": 2},
    }


def test_equal_rows_make_equal_files_and_other_seeds_other_ones(tmp_path: Path) -> None:
    subject = engine(tmp_path)
    first, again = (run(subject, row(prompt="a fox", n=2)) for _ in range(2))
    assert [file.sha256 for file in first.files] == [file.sha256 for file in again.files]
    assert first.body == again.body
    assert first.files[0].sha256 != first.files[2].sha256


def test_a_picture_may_stand_in_the_body(tmp_path: Path) -> None:
    result = run(engine(tmp_path), row(prompt="a fox", response_format="b64_json"))
    (item,) = body_of(result)["data"]
    assert set(item) == {"artifact_id", "seed", "b64_json"}
    assert base64.b64decode(item["b64_json"]) == Path(result.files[0].path).read_bytes()


def test_inputs_are_read(tmp_path: Path) -> None:
    given = tmp_path / "input"
    given.write_bytes(b"fox")
    edit = row("/v1/images/edits", {"file-1": str(given)}, prompt="a fox", image="file-1")
    first = run(engine(tmp_path), edit)
    sha256 = hashlib.sha256(b"fox").hexdigest()
    assert first.files[0].provenance["inputs"] == {"file-1": sha256}
    given.write_bytes(b"hen")
    assert run(engine(tmp_path), edit).files[0].sha256 != first.files[0].sha256
    given.unlink()
    assert run(engine(tmp_path), edit).status == 400


@pytest.mark.parametrize(
    ("wanted", "media_type"), [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("pcm", "audio/pcm")]
)
def test_speech(tmp_path: Path, wanted: str, media_type: str) -> None:
    text = "A fox. A hen!"
    result = run(engine(tmp_path), row(SPEECH, input=text, response_format=wanted))
    sound, waveform = result.files
    assert (sound.name, sound.role, sound.media_type) == (f"speech.{wanted}", "audio", media_type)
    assert (waveform.name, waveform.parent) == ("speech.waveform.png", sound.id)
    body = body_of(result)
    assert body["seconds"] == sound.seconds == pytest.approx(len(text) / 15)
    assert [sentence["text"] for sentence in body["sentences"]] == ["A fox", "A hen"]
    assert body["sentences"][-1]["end"] == pytest.approx(body["seconds"], abs=0.01)


def test_a_wave_file_is_as_long_as_it_says() -> None:
    with wave.open(io.BytesIO(fake_files.wav(1.5))) as file:
        assert file.getnframes() / file.getframerate() == 1.5


@pytest.mark.parametrize(
    ("endpoint", "body", "seconds"),
    [
        ("/v1/videos", {"prompt": "a fox", "seconds": "8"}, 8.0),
        ("/v1/videos/compositions", {"scenes": [{"seconds": 3.0}, {"title": "x"}]}, 5.0),
    ],
)
def test_videos(tmp_path: Path, endpoint: str, body: dict[str, Any], seconds: float) -> None:
    result = run(engine(tmp_path), row(endpoint, size="64x32", **body))
    video, thumbnail, sheet = result.files
    said = body_of(result)
    assert (said["artifact_id"], said["thumbnail_id"], said["spritesheet_id"]) == (
        video.id, thumbnail.id, sheet.id,
    )  # fmt: skip
    assert (said["seconds"], said["size"], said["media_type"]) == (seconds, "64x32", "video/mp4")
    assert [file.role for file in result.files] == ["video", "thumbnail", "spritesheet"]


def test_progress_and_previews_pass_with_the_time(tmp_path: Path) -> None:
    clock = Clock()
    subject = engine(tmp_path, clock, seconds_per_row=4.0)
    assert subject.submit(1, 1, row(prompt="a fox", partial_images=1)) is None
    assert subject.progress() == []
    told = []
    for now in (0.9, 1.0, 1.5, 2.0, 3.5, 3.9):
        clock.now = now
        assert subject.step() == []
        told += subject.progress()
    assert [(word.step, word.steps, word.preview is not None) for word in told] == [
        (1, 4, False), (2, 4, True), (3, 4, False),
    ]  # fmt: skip
    preview = told[1].preview
    assert preview is not None
    assert (preview.role, preview.media_type) == ("preview", "image/webp")
    clock.now = 4.0
    assert len(subject.step()) == 1
    assert subject.progress() == []


def test_a_cancelled_row_tells_nothing_more(tmp_path: Path) -> None:
    clock = Clock()
    subject = engine(tmp_path, clock, seconds_per_row=4.0)
    subject.submit(1, 1, row(prompt="a fox"))
    subject.cancel(1, 1)
    clock.now = 2.0
    assert subject.progress() == []


def test_what_it_cannot_make_is_refused(tmp_path: Path) -> None:
    for given in (
        row(prompt="a fox", output_format="jpeg"),
        row(SPEECH, input="a fox", response_format="flac"),
        row(prompt="[[bad-file sideways]]"),
    ):
        assert run(engine(tmp_path), given).status == 400
    assert run(FakeEngine("m", FakeSettings()), row(prompt="a fox")).status == 400
    assert list(tmp_path.glob("*.jpeg")) == []
