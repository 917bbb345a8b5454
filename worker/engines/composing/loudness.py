"""How loud a voice is at each frame, as a number that can move a picture. Pure."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_FLOOR_DB, _RANGE_DB = -48.0, 30.0
_ATTACK, _RELEASE = 0.75, 0.35
"""How much of the way to a louder, or softer, value one frame of 25 goes."""
_REFERENCE_FPS = 25.0


def levels(voice: NDArray[np.float32], rate: int, fps: int, frame_n: int) -> NDArray[np.float32]:
    """(frame_n,) of 0..1: the loudness around each frame, relative to the voice's own loud parts,
    smoothed so that it rises fast and falls gently. ``voice`` is (samples,), mono."""
    power = _frame_power(voice, rate, fps, frame_n)
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    speech = decibels[decibels > _FLOOR_DB]
    top = float(np.percentile(speech, 90)) if len(speech) else 0.0
    raw = np.clip(1.0 + (decibels - top) / _RANGE_DB, 0.0, 1.0)
    raw[decibels <= _FLOOR_DB] = 0.0
    return _smoothed(raw, fps).astype(np.float32)


def _frame_power(
    voice: NDArray[np.float32], rate: int, fps: int, frame_n: int
) -> NDArray[np.float64]:
    """The mean square of the samples that are heard while a frame is shown."""
    edges = np.minimum(np.arange(frame_n + 1) * rate // fps, len(voice))
    return np.array(
        [
            float(np.square(voice[start:end], dtype=np.float64).mean()) if end > start else 0.0
            for start, end in pairwise(edges)
        ]
    )


def _smoothed(raw: NDArray[np.float64], fps: int) -> NDArray[np.float64]:
    attack, release = (1 - (1 - part) ** (_REFERENCE_FPS / fps) for part in (_ATTACK, _RELEASE))
    smooth, value = np.empty_like(raw), 0.0
    for place, wanted in enumerate(raw):
        value += (wanted - value) * (attack if wanted > value else release)
        smooth[place] = value
    return smooth
