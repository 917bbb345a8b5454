"""Sounds into files of the spool: mp3, Ogg Opus, FLAC, WAV and raw samples."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from shared.ids import artifact_id
from worker.engines.protocol import OutputFile
from worker.engines.sounds.resampling import resample

Samples = NDArray[np.float32]
SoundFormat = Literal["mp3", "opus", "flac", "wav", "pcm"]

MEDIA_TYPES: Mapping[SoundFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
EXTENSIONS: Mapping[SoundFormat, str] = {name: f".{name}" for name in MEDIA_TYPES}
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
OPUS_RATE = 48_000
_MP3_LEVEL = 0.4
"""Of libsndfile's scale of constant bit rates, 1 the smallest: 96 kbit/s at 24 kHz."""
_HASH_BYTES = 2**20


def format_rate(sound_format: SoundFormat, rate: int) -> int:
    """The rate in which a sound of ``rate`` Hertz goes into the format: its own where it can."""
    if sound_format == "opus":
        return OPUS_RATE
    if sound_format == "mp3":
        return next((known for known in MP3_RATES if known >= rate), MP3_RATES[-1])
    return rate


class SoundWriter:
    """A sound file that is written piece by piece, at one rate.

    ``tags`` are text fields such as ``title`` and ``comment``; ``wav`` and ``pcm`` have no room
    for them and leave them out.
    """

    def __init__(
        self,
        path: Path,
        sound_format: SoundFormat,
        rate: int,
        *,
        channels: int = 1,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if format_rate(sound_format, rate) != rate:
            raise ValueError(f"{sound_format} has no sample rate of {rate} Hz")
        self.frames = 0
        self._raw: BinaryIO | None = None
        self._file: soundfile.SoundFile | None = None
        if sound_format == "pcm":
            self._raw = path.open("wb")
            return
        self._file = soundfile.SoundFile(
            path, "w", samplerate=rate, channels=channels, **_CODECS[sound_format]
        )
        for name, value in (tags or {}).items() if sound_format != "wav" else ():
            setattr(self._file, name, value)

    def write(self, samples: Samples) -> None:
        """(n,) or (n, channels) more samples; what is over full scale is clipped."""
        self.frames += len(samples)
        if self._raw is not None:
            scaled = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0)
            self._raw.write(scaled.astype("<i2").tobytes())
        elif self._file is not None:
            self._file.write(samples)

    def close(self) -> None:
        """Completes the file. Raises OSError or LibsndfileError when it can't be."""
        for file in (self._raw, self._file):
            if file is not None:
                file.close()

    def __enter__(self) -> SoundWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_CODECS: Mapping[SoundFormat, dict[str, Any]] = {
    "mp3": {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "CONSTANT",
        "compression_level": _MP3_LEVEL,
    },
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "wav": {"format": "WAV", "subtype": "PCM_16"},
}


def write_sound(
    samples: Samples,
    rate: int,
    spool: Path,
    *,
    row: str,
    name: str,
    sound_format: SoundFormat,
    role: str = "audio",
    parent: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> OutputFile:
    """Writes a whole sound, (frames,) or (frames, channels), into the spool and describes it.

    It is resampled where the format doesn't know its rate. ``row`` is the row's id, ``name`` the
    artifact's, such as ``speech.mp3``.
    """
    path = fresh_path(spool, EXTENSIONS[sound_format])
    target = format_rate(sound_format, rate)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with SoundWriter(path, sound_format, target, channels=channels, tags=tags) as writer:
        writer.write(resample(samples, rate, target))
    return file_of(
        path,
        row=row,
        name=name,
        role=role,
        media_type=MEDIA_TYPES[sound_format],
        parent=parent,
        seconds=len(samples) / rate,
        provenance=provenance,
    )


def fresh_path(spool: Path, extension: str) -> Path:
    """A path in the spool that nobody else uses."""
    return spool / f"{uuid.uuid4().hex}{extension}"


def file_of(
    path: Path,
    *,
    row: str,
    name: str,
    role: str,
    media_type: str,
    parent: str | None = None,
    width: int | None = None,
    height: int | None = None,
    seconds: float | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> OutputFile:
    """Describes a complete file of the spool: its size and digest are read from it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return OutputFile(
        id=artifact_id(row, name),
        name=name,
        path=str(path.absolute()),
        role=role,
        media_type=media_type,
        bytes=path.stat().st_size,
        sha256=digest.hexdigest(),
        parent=parent,
        width=width,
        height=height,
        seconds=seconds,
        provenance=dict(provenance or {}),
    )
