"""The sound of a composed video: narrations in their places, music under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from worker.engines.encoding import CHANNELS, SAMPLE_RATE
from worker.engines.sounds import integrated_loudness

Samples = NDArray[np.float32]

VOICE_LUFS = -17.0
_MOST_GAIN_DB = 15.0
MUSIC_LUFS = -24.0
DUCKED_DB = -13.0
"""How much softer music is while somebody speaks."""
_CEILING = 0.94
_CONTROL_HZ = 50
_DUCK_SECONDS, _RISE_SECONDS = 0.35, 0.9
_PAUSE_SECONDS = 0.7
"""A pause in speech that is shorter does not bring the music up."""
_FADE_IN_SECONDS, _FADE_OUT_SECONDS = 0.4, 2.0
_SEAM_SECONDS = 1.0
"""Over which a loop's end is mixed with its beginning."""
_AUDIBLE = 0.01


@dataclass(frozen=True, slots=True)
class Voice:
    """A narration and the sample at which it begins."""

    samples: Samples
    """(n,), mono at ``SAMPLE_RATE``."""
    start: int


def levelled(voice: Samples) -> Samples:
    """A narration at the loudness that all have here, as far as its peaks allow."""
    loudness = integrated_loudness(voice, SAMPLE_RATE)
    if loudness is None:
        return voice
    wanted = min(_MOST_GAIN_DB, max(-_MOST_GAIN_DB, VOICE_LUFS - loudness))
    peak = float(np.abs(voice).max())
    gain = min(10 ** (wanted / 20), _CEILING / peak)
    return (voice * np.float32(gain)).astype(np.float32, copy=False)


class Soundtrack:
    """Sound by stretches, in order; nothing but the sources is ever whole in memory."""

    def __init__(self, voices: Sequence[Voice], music: Samples | None, length: int) -> None:
        """``music`` is (n, 2) at ``SAMPLE_RATE``; ``length`` is the video's, in samples."""
        self._voices = voices
        self._length = length
        self._place = 0
        self._bed = _Bed(music, voices, length) if music is not None and len(music) else None

    def read(self, until: int) -> Samples:
        """(n, 2) from where the last call ended to the sample ``until``."""
        start, end = self._place, min(until, self._length)
        self._place = max(start, end)
        mixed = np.zeros((max(0, end - start), CHANNELS), np.float32)
        for voice in self._voices:
            first = max(start, voice.start)
            last = min(end, voice.start + len(voice.samples))
            if first < last:
                part = voice.samples[first - voice.start : last - voice.start]
                mixed[first - start : last - start] += part[:, None]
        if self._bed is not None:
            mixed += self._bed.read(start, end)
        return np.clip(mixed, -_CEILING, _CEILING)


class _Bed:
    """Music as long as the video, softer under speech."""

    def __init__(self, music: Samples, voices: Sequence[Voice], length: int) -> None:
        self._loop = _looped(music, length)
        self._length = length
        loudness = integrated_loudness(music.mean(axis=1, dtype=np.float32), SAMPLE_RATE)
        loud_db = 0.0 if loudness is None else min(_MOST_GAIN_DB, MUSIC_LUFS - loudness)
        self._gain = float(10 ** (loud_db / 20))
        self._control = _ducking(voices, length)

    def read(self, start: int, end: int) -> Samples:
        places = np.arange(start, end)
        step = SAMPLE_RATE / _CONTROL_HZ
        gain = np.interp(places / step, np.arange(len(self._control)), self._control)
        gain *= np.clip(places / (SAMPLE_RATE * _FADE_IN_SECONDS), 0, 1)
        gain *= np.clip((self._length - places) / (SAMPLE_RATE * _FADE_OUT_SECONDS), 0, 1)
        sound: Samples = self._loop[places % len(self._loop)]
        return sound * (self._gain * gain).astype(np.float32)[:, None]


def _looped(music: Samples, length: int) -> Samples:
    """The part that is repeated: its end runs into its beginning without a seam."""
    seam = min(round(_SEAM_SECONDS * SAMPLE_RATE), len(music) // 4)
    if len(music) >= length or seam == 0:
        return music
    ramp = np.linspace(0, 1, seam, dtype=np.float32)[:, None]
    body = music[:-seam].copy()
    body[:seam] = body[:seam] * np.sqrt(ramp) + music[-seam:] * np.sqrt(1 - ramp)
    # The first round begins with the mixed second too: nobody hears what came before it.
    return body


def _ducking(voices: Sequence[Voice], length: int) -> NDArray[np.float64]:
    """Gain at ``_CONTROL_HZ``: 1 between narrations, ``DUCKED_DB`` under them, smooth between."""
    step = SAMPLE_RATE // _CONTROL_HZ
    spoken = np.zeros(length // step + 2, bool)
    for voice in voices:
        whole = voice.samples[: len(voice.samples) // step * step].reshape(-1, step)
        loud = np.flatnonzero(np.abs(whole).max(axis=1, initial=0) > _AUDIBLE)
        spoken[np.minimum(loud + voice.start // step, len(spoken) - 1)] = True
    spoken = _closed(spoken, round(_PAUSE_SECONDS * _CONTROL_HZ))
    wanted = np.where(spoken, 10 ** (DUCKED_DB / 20), 1.0)
    return _eased(wanted)


def _closed(spoken: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Short pauses filled."""
    places = np.flatnonzero(spoken)
    filled = spoken.copy()
    for before, after in pairwise(places):
        if after - before <= most:
            filled[before:after] = True
    return filled


def _eased(wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Falls before speech begins, so that the first word is clear, and rises after it slowly."""
    fall = (1 - wanted.min()) / (_DUCK_SECONDS * _CONTROL_HZ)
    rise = (1 - wanted.min()) / (_RISE_SECONDS * _CONTROL_HZ)
    gain = wanted.copy()
    for place in range(len(gain) - 2, -1, -1):
        gain[place] = min(gain[place], gain[place + 1] + fall)
    for place in range(1, len(gain)):
        gain[place] = min(gain[place], gain[place - 1] + rise)
    return gain
