"""Rows for the engines that make videos, what goes into them, and what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from worker.engines.base import Engine
from worker.engines.composer import create
from worker.engines.protocol import Load, OutputFile, Row, RowProgress, RowResult

COMPOSITIONS = "/v1/videos/compositions"
RATE = 48_000


@dataclass
class Material:
    """A tenant's inputs in a folder; names are what a body says, paths what a row carries."""

    folder: Path
    paths: dict[str, str] = field(default_factory=dict)

    def picture(self, name: str, picture: Image.Image) -> str:
        path = self.folder / f"{name}.png"
        picture.save(path)
        return self._add(name, path)

    def sound(self, name: str, samples: NDArray[Any], rate: int = RATE) -> str:
        path = self.folder / f"{name}.wav"
        soundfile.write(path, samples, rate, subtype="PCM_16")
        return self._add(name, path)

    def file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return self._add(name, path)

    def _add(self, name: str, path: Path) -> str:
        reference = f"art_{name}"
        self.paths[reference] = str(path)
        return reference


def checks(size: tuple[int, int], squares: int = 8, hue: int = 30) -> Image.Image:
    """A picture with edges everywhere, so that any motion changes pixels."""
    picture = Image.new("RGB", size, (hue, 60, 90))
    pen = ImageDraw.Draw(picture)
    side = size[0] / squares
    for row in range(squares):
        for column in range(row % 2, squares, 2):
            box = (column * side, row * side, (column + 1) * side - 1, (row + 1) * side - 1)
            pen.rectangle(box, fill=(230 - 8 * row, 190 - 10 * column, 120))
    return picture


def plain(size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", size, colour)


def speech(seconds: float, seed: int = 3, loud: float = 0.3) -> NDArray[np.float32]:
    """Noise in syllables: what a voice looks like to a meter, and no two moments of it alike."""
    n = round(seconds * RATE)
    noise = np.random.default_rng(seed).standard_normal(n)
    smooth = np.convolve(noise, np.ones(24) / 24, "same")
    times = np.arange(n) / RATE
    syllables = np.clip(np.sin(2 * np.pi * 1.7 * times), 0, 1) ** 0.5
    sound: NDArray[np.float32] = (loud * 3 * smooth * syllables).clip(-1, 1).astype(np.float32)
    return sound


def composer(spool: Path, **settings: Any) -> Engine:
    spool.mkdir(exist_ok=True)
    load = Load("composer", "composer", "", settings, str(spool), "https://plant.example")
    return create(load, lambda fraction, detail: None)


def composition(
    material: Material, scenes: list[dict[str, Any]], *, index: int = 0, **more: Any
) -> Row:
    body = {"model": "composer", "scenes": scenes, "size": "320x180", **more}
    return Row(index, COMPOSITIONS, json.dumps(body).encode(), f"job-{index}", material.paths)


@dataclass
class Run:
    """One row taken to its end."""

    result: RowResult
    progress: list[RowProgress]
    steps: int

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.result.body)
        return body

    @property
    def files(self) -> dict[str, OutputFile]:
        return {file.role: file for file in self.result.files}

    @property
    def video(self) -> Path:
        assert self.result.status == 200, self.body
        return Path(self.files["video"].path)


def run(engine: Any, row: Row) -> Run:
    """Submits a row and steps to the end."""
    refused = engine.submit(1, 1, row)
    if refused is not None:
        return Run(refused, [], 0)
    results: list[RowResult] = []
    progress: list[RowProgress] = []
    steps = 0
    while engine.busy:
        results += engine.step()
        progress += engine.progress()
        steps += 1
    assert len(results) == 1
    return Run(results[0], progress, steps)


def frames(path: Path) -> list[NDArray[np.int16]]:
    """Every frame as (height, width, 3)."""
    with av.open(str(path)) as file:
        return [f.to_ndarray(format="rgb24").astype(np.int16) for f in file.decode(video=0)]


def audio(path: Path) -> NDArray[np.float32]:
    """(samples,) of the first channel, in its place on the video's clock."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        assert stream.rate == RATE
        pieces = [(f.time or 0.0, f.to_ndarray()[0]) for f in file.decode(stream)]
    sound = np.zeros(round(pieces[-1][0] * RATE) + len(pieces[-1][1]), np.float32)
    for start, piece in pieces:
        place = max(0, round(start * RATE))
        sound[place : place + len(piece)] = piece
    return sound


def streams(path: Path) -> Mapping[str, str]:
    """Codec by kind of stream."""
    with av.open(str(path)) as file:
        return {stream.type: stream.codec_context.codec.canonical_name for stream in file.streams}


def lag(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """By how many seconds ``found`` is late, by its best correlation with ``wanted``."""
    n = 1 << (len(found) + len(wanted)).bit_length()
    together = np.fft.irfft(np.fft.rfft(found, n) * np.conj(np.fft.rfft(wanted, n)), n)
    place = int(np.argmax(together))
    return (place if place < n // 2 else place - n) / RATE


def difference(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    """The mean difference of two frames, or parts of them, in levels of 255."""
    return float(np.abs(one - other).mean())
