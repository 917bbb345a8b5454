"""Sound files from tenants, read with bounds on bytes, seconds, channels and rate.

Only WAV, FLAC, Ogg (Vorbis, Opus) and MP3 reach the decoder: the first bytes decide before it sees
the file. Headers are not believed: reading stops at the limit, whatever they promise.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"}
_SUBTYPES = {
    "PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW",
    "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III",
}  # fmt: skip
_READ_FRAMES = 65_536
_ACCEPTED = "WAV, FLAC, Ogg and MP3 files are read"


class UnreadableSound(ValueError):
    """The bytes are no sound that is accepted here; the message may be shown to a tenant."""


@dataclass(frozen=True, slots=True)
class SoundLimits:
    """The most that is decoded."""

    bytes: int = 200 * 2**20
    seconds: float = 3600.0
    channels: int = 2
    rate: int = 192_000
    """Hertz."""
    samples: int = 2 * 48_000 * 600
    """Of all channels together, four bytes each; reading takes twice that."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A decoded sound."""

    samples: Samples
    """(frames, channels), full scale is ±1; every value is finite."""
    rate: int
    """Hertz."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def mono(self) -> Samples:
        """(frames,): the mean of the channels."""
        if self.samples.shape[1] == 1:
            return self.samples[:, 0]
        mixed: Samples = self.samples.mean(axis=1, dtype=np.float32)
        return mixed


def decode_sound(source: Path | bytes, limits: SoundLimits | None = None) -> Sound:
    """The whole sound of a file or of its bytes.

    Raises UnreadableSound when it is too large, too long, has too many channels, is broken, or is
    of another format.
    """
    limits = limits or SoundLimits()
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), len(source), limits)
    with source.open("rb") as file:
        return _decode(file, source.stat().st_size, limits)


def _decode(file: BinaryIO, size: int, limits: SoundLimits) -> Sound:
    if size > limits.bytes:
        raise UnreadableSound(f"the sound has {size} bytes, the limit is {limits.bytes}")
    head = file.read(12)
    file.seek(0)
    if not _looks_like_sound(head):
        raise UnreadableSound(f"this is no sound file of a known format; {_ACCEPTED}")
    try:
        with soundfile.SoundFile(file) as opened:
            _check(opened, limits)
            return Sound(_read(opened, limits), opened.samplerate)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UnreadableSound(f"the sound file is broken ({type(error).__name__})") from None


def _looks_like_sound(head: bytes) -> bool:
    if head[:4] in (b"RIFF", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] in (b"fLaC", b"OggS") or head[:3] == b"ID3":
        return True
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0  # noqa: PLR2004 - MPEG sync


def _check(opened: soundfile.SoundFile, limits: SoundLimits) -> None:
    if opened.format not in _FORMATS or opened.subtype not in _SUBTYPES:
        raise UnreadableSound(f"{opened.format} with {opened.subtype} is not read; {_ACCEPTED}")
    if opened.channels > limits.channels:
        raise UnreadableSound(
            f"the sound has {opened.channels} channels, the limit is {limits.channels}"
        )
    if not 1 <= opened.samplerate <= limits.rate:
        raise UnreadableSound(
            f"the sound has a sample rate of {opened.samplerate} Hz, the limit is {limits.rate}"
        )
    if opened.frames > limits.seconds * opened.samplerate:
        raise _too_long(limits)
    if opened.frames * opened.channels > limits.samples:
        raise _too_many(limits)


def _read(opened: soundfile.SoundFile, limits: SoundLimits) -> Samples:
    most = int(limits.seconds * opened.samplerate)
    blocks: list[Samples] = []
    frames = 0
    while True:
        block: Samples = opened.read(_READ_FRAMES, dtype="float32", always_2d=True)
        frames += len(block)
        if frames > most:
            raise _too_long(limits)
        if frames * opened.channels > limits.samples:
            raise _too_many(limits)
        if len(block) == 0:
            break
        blocks.append(np.nan_to_num(block, copy=False, posinf=1.0, neginf=-1.0))
    if not blocks:
        raise UnreadableSound("the sound file holds no samples")
    return np.concatenate(blocks)


def _too_long(limits: SoundLimits) -> UnreadableSound:
    return UnreadableSound(f"the sound is longer than {limits.seconds:g} seconds")


def _too_many(limits: SoundLimits) -> UnreadableSound:
    return UnreadableSound(f"the sound holds more than {limits.samples} samples")
