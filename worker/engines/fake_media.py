"""What the fake engine answers to calls for pictures, speech and video: small files, real shapes.

Everything derives from a hash of the model, the text and the inputs' bytes, so equal rows make
equal files on every attempt.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from shared.errors import InvalidRequest
from worker.engines import fake_files
from worker.engines.fake_desk import Desk, Where
from worker.engines.fake_responses import CREATED
from worker.engines.protocol import OutputFile, Row

SIDE = 64
STEPS = 4
FPS = 8
MOST_SECONDS = 5.0
CHARACTERS_PER_SECOND = 15.0


class FakeMedia(NamedTuple):
    """A result body, its files, and usage in words."""

    body: bytes
    input_tokens: int
    files: list[OutputFile]


# --- requests: the fields that matter here ----------------------------------------------------


class _Image(msgspec.Struct):
    prompt: str = ""
    n: int | None = None
    size: str | None = None
    seed: int | None = None
    steps: int | None = None
    output_format: str | None = None
    response_format: str | None = None
    partial_images: int | None = None


class _Speech(msgspec.Struct):
    input: str
    voice: str | dict[str, str] | None = None
    response_format: str | None = None


class _Video(msgspec.Struct):
    prompt: str = ""
    seconds: str | int | None = None
    size: str | None = None
    steps: int | None = None
    fps: int | None = None
    output_format: str | None = None


class _Scene(msgspec.Struct):
    title: str | None = None
    seconds: float | None = None


class _Composition(msgspec.Struct):
    scenes: list[_Scene]
    size: str | None = None
    fps: int | None = None
    output_format: str | None = None


_image = msgspec.json.Decoder(_Image)
_speech = msgspec.json.Decoder(_Speech)
_video = msgspec.json.Decoder(_Video)
_composition = msgspec.json.Decoder(_Composition)


def serves_media(endpoint: str) -> bool:
    return endpoint in _ANSWERS


def media_text(endpoint: str, body: bytes) -> str:
    """The prompt or script, where directives stand. Raises msgspec.MsgspecError."""
    if endpoint == "/v1/audio/speech":
        return _speech.decode(body).input
    if endpoint == "/v1/videos/compositions":
        return " ".join(scene.title or "" for scene in _composition.decode(body).scenes)
    return _image.decode(body).prompt


def step_count(body: bytes) -> int:
    """How many steps the row takes, as far as its progress is concerned."""
    return _image.decode(body).steps or STEPS


def preview_count(endpoint: str, body: bytes) -> int:
    """How many previews the row wants."""
    if not endpoint.startswith("/v1/images/"):
        return 0
    return _image.decode(body).partial_images or 0


def fake_media(row: Row, where: Where) -> FakeMedia:
    """Writes the row's files into the spool and describes them.

    Raises InvalidRequest, and msgspec.MsgspecError for a body that doesn't fit the endpoint.
    """
    if not where.spool:
        raise InvalidRequest("this engine was given no spool")
    return _ANSWERS[row.endpoint](row, _desk(row, where))


def fake_preview(row: Row, where: Where, number: int) -> OutputFile:
    """The ``number``-th look at a picture that is not finished."""
    desk = _desk(row, where)
    data = fake_files.webp(SIDE, SIDE, desk.colour(f"preview {number}"))
    name = f"0.preview.{number}.webp"
    return desk.write(name, data, "preview", "image/webp", width=SIDE, height=SIDE)


def _desk(row: Row, where: Where) -> Desk:
    return Desk(row, where, media_text(row.endpoint, row.body))


def _images(row: Row, desk: Desk) -> FakeMedia:
    spec = _image.decode(row.body)
    kind = spec.output_format or "png"
    if kind not in ("png", "webp"):
        raise InvalidRequest("the fake engine makes png and webp", param="output_format")
    width, height = _sides(spec.size)
    seed = desk.seed() if spec.seed is None else spec.seed
    data: list[dict[str, Any]] = []
    for number in range(spec.n or 1):
        draw = fake_files.png if kind == "png" else fake_files.webp
        picture = draw(width, height, desk.colour(f"seed {seed + number}"))
        facts = desk.provenance(seed=seed + number, prompt=spec.prompt, steps=spec.steps or STEPS)
        file = desk.write(
            f"{number}.{kind}", picture, "image", f"image/{kind}",
            width=width, height=height, provenance=facts,
        )  # fmt: skip
        desk.illustrate(file, ".thumbnail.webp", "thumbnail", min(width, 256), min(height, 256))
        item: dict[str, Any] = desk.links(file) | {"seed": seed + number}
        if spec.response_format == "b64_json":
            del item["url"]
            item["b64_json"] = base64.b64encode(picture).decode()
        data.append(item)
    words = len(spec.prompt.split())
    body = {
        "created": CREATED,
        "model": desk.model,
        "data": data,
        "size": f"{width}x{height}",
        "output_format": kind,
        "steps": spec.steps or STEPS,
        "usage": {"input_tokens": words, "output_tokens": 0, "total_tokens": words},
    }
    return FakeMedia(msgspec.json.encode(body), words, desk.files)


def _speech_sound(row: Row, desk: Desk) -> FakeMedia:
    spec = _speech.decode(row.body)
    kind = spec.response_format or "mp3"
    sounds: dict[str, tuple[Callable[[float], bytes], str]] = {
        "mp3": (fake_files.mp3, "audio/mpeg"),
        "wav": (fake_files.wav, "audio/wav"),
        "pcm": (fake_files.pcm, "audio/pcm"),
    }
    if kind not in sounds:
        raise InvalidRequest("the fake engine makes mp3, wav and pcm", param="response_format")
    make, media_type = sounds[kind]
    seconds = min(MOST_SECONDS, max(0.2, len(spec.input) / CHARACTERS_PER_SECOND))
    facts = desk.provenance(input=spec.input)
    file = desk.write(
        f"speech.{kind}", make(seconds), "audio", media_type, seconds=seconds, provenance=facts
    )
    desk.illustrate(file, ".waveform.png", "waveform", 256, SIDE)
    voice = spec.voice.get("id", "") if isinstance(spec.voice, dict) else spec.voice
    body: dict[str, Any] = {
        "object": "audio.speech",
        "model": desk.model,
        "voice": voice or "default",
        **desk.links(file),
        "media_type": media_type,
        "seconds": seconds,
        "sample_rate": fake_files.SAMPLE_RATE,
        "loudness_lufs": None,
        "sentences": _sentences(spec.input, seconds),
    }
    return FakeMedia(msgspec.json.encode(body), len(spec.input.split()), desk.files)


def _sentences(text: str, seconds: float) -> list[dict[str, Any]]:
    """Each sentence's share of the time is its share of the letters."""
    parts = [part.strip() for part in text.replace("!", ".").split(".") if part.strip()]
    letters = sum(map(len, parts)) or 1
    said, at = [], 0.0
    for part in parts:
        end = at + seconds * len(part) / letters
        said.append({"text": part, "start": round(at, 3), "end": round(end, 3)})
        at = end
    return said


def _generated_video(row: Row, desk: Desk) -> FakeMedia:
    spec = _video.decode(row.body)
    seconds = float(spec.seconds or 4)
    return _video_file(desk, spec, seconds, len(spec.prompt.split()))


def _composed_video(row: Row, desk: Desk) -> FakeMedia:
    spec = _composition.decode(row.body)
    return _video_file(desk, spec, sum(scene.seconds or 2.0 for scene in spec.scenes), 0)


def _video_file(desk: Desk, spec: _Video | _Composition, seconds: float, words: int) -> FakeMedia:
    kind = spec.output_format or "mp4"
    width, height = _sides(spec.size)
    media_type = f"video/{kind}"
    data = fake_files.mp4() if kind == "mp4" else fake_files.webm()
    file = desk.write(
        f"video.{kind}", data, "video", media_type,
        width=width, height=height, seconds=seconds, provenance=desk.provenance(),
    )  # fmt: skip
    thumbnail = desk.illustrate(file, ".thumbnail.webp", "thumbnail", SIDE, SIDE)
    sheet = desk.illustrate(file, ".spritesheet.webp", "spritesheet", 4 * SIDE, SIDE)
    body = {
        "object": "video.file",
        "model": desk.model,
        **desk.links(file),
        "media_type": media_type,
        "seconds": seconds,
        "size": f"{width}x{height}",
        "fps": spec.fps or FPS,
        "thumbnail_id": thumbnail.id,
        "spritesheet_id": sheet.id,
        "captions_id": None,
    }
    return FakeMedia(msgspec.json.encode(body), words, desk.files)


def _sides(size: str | None) -> tuple[int, int]:
    width, _, height = (size or "auto").partition("x")
    return (int(width), int(height)) if height else (SIDE, SIDE)


_ANSWERS: dict[str, Callable[[Row, Desk], FakeMedia]] = {
    "/v1/images/generations": _images,
    "/v1/images/edits": _images,
    "/v1/images/variations": _images,
    "/v1/audio/speech": _speech_sound,
    "/v1/videos": _generated_video,
    "/v1/videos/compositions": _composed_video,
}
