"""Faster or slower without another pitch (WSOLA: overlapping grains, each shifted to fit)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_GRAIN_SECONDS = 0.03
_SEARCH_SECONDS = 0.008


def stretch(samples: Samples, rate: int, speed: float) -> Samples:
    """The mono sound (frames,) at ``speed`` times its pace, about ``frames / speed`` long."""
    hop = round(rate * _GRAIN_SECONDS / 2)
    length = round(len(samples) / speed)
    if speed == 1.0 or length <= 2 * hop:
        return samples
    search = round(rate * _SEARCH_SECONDS)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2 * hop) / (2 * hop))).astype(np.float32)
    grains = -(-length // hop) + 1
    tail = int(grains * hop * speed) + 4 * hop + 2 * search - len(samples)
    source = np.pad(samples, (hop + search, max(0, tail)))
    out = np.zeros((grains + 1) * hop, np.float32)
    place = search
    for grain in range(grains):
        if grain:
            wanted = source[place + hop : place + 3 * hop]
            around = search + round(grain * hop * speed)
            place = (
                around
                - search
                + _best_shift(source[around - search : around + search + 2 * hop], wanted)
            )
        out[grain * hop : (grain + 2) * hop] += source[place : place + 2 * hop] * window
    return out[hop : hop + length]


def _best_shift(candidates: Samples, wanted: Samples) -> int:
    """Where ``wanted`` is most alike in ``candidates``: by normalised correlation."""
    windows = sliding_window_view(candidates, len(wanted))
    energy = np.sqrt(np.convolve(np.square(candidates), np.ones(len(wanted)), "valid") + 1e-8)
    return int(np.argmax((windows @ wanted) / energy))
