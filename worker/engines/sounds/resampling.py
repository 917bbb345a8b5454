"""Sample rates: a polyphase resampler with a Kaiser-windowed sinc, for whole sounds and streams."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_ZERO_CROSSINGS = 32
_CUTOFF = 0.945
"""Of the lower Nyquist frequency: the middle of the filter's slope."""
_BETA = 9.0
"""Kaiser window: more than 90 dB of stop band."""


@lru_cache(maxsize=4)
def _bank(up: int, down: int) -> tuple[NDArray[np.float32], int]:
    """((up, taps) filters, half of taps); filter p computes a sample p/up after an input's."""
    cutoff = _CUTOFF * min(1.0, up / down)
    half = ceil(_ZERO_CROSSINGS / cutoff)
    offsets = np.arange(1 - half, half + 1)[None, :] - np.arange(up)[:, None] / up
    window = np.i0(_BETA * np.sqrt(np.clip(1 - (offsets / half) ** 2, 0, None))) / np.i0(_BETA)
    filters = cutoff * np.sinc(cutoff * offsets) * window
    filters /= filters.sum(axis=1, keepdims=True)  # every phase passes a constant unchanged
    return filters.astype(np.float32), half


class Resampler:
    """A stream of mono samples at another rate. Fed in pieces, it gives what it would for the
    whole; the end of ``n`` samples is at ``ceil(n * target / source)``, without delay."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        divisor = gcd(source_rate, target_rate)
        self._up, self._down = target_rate // divisor, source_rate // divisor
        self._same = self._up == self._down
        if not self._same:
            self._filters, self._half = _bank(self._up, self._down)
            self._held = np.zeros(self._half - 1, np.float32)
            self._first = 1 - self._half  # the input that _held begins with
        self._fed = 0
        self._given = 0

    def feed(self, samples: Samples) -> Samples:
        """(n,) samples in, those out whose whole neighbourhood is known."""
        if self._same:
            return samples
        self._fed += len(samples)
        self._held = np.concatenate([self._held, samples.astype(np.float32, copy=False)])
        known = (self._fed - self._half) * self._up  # output i needs inputs up to i*down/up + half
        return self._give(max(self._given, -(-known // self._down)))

    def flush(self) -> Samples:
        """The rest, as if silence followed. The stream is at its end."""
        if self._same:
            return np.zeros(0, np.float32)
        self._held = np.concatenate([self._held, np.zeros(self._half + 1, np.float32)])
        return self._give(-(-self._fed * self._up // self._down))

    def _give(self, end: int) -> Samples:
        count = end - self._given
        out = np.empty(max(0, count), np.float32)
        if count <= 0:
            return out
        windows = sliding_window_view(self._held, 2 * self._half)
        for lane in range(min(self._up, count)):
            place, phase = divmod((self._given + lane) * self._down, self._up)
            start = place - self._half + 1 - self._first
            rows = windows[start :: self._down][: -(-(count - lane) // self._up)]
            out[lane :: self._up] = rows @ self._filters[phase]
        self._given = end
        keep = end * self._down // self._up - self._half + 1
        self._held = self._held[keep - self._first :].copy()
        self._first = keep
        return out


def between(samples: Samples, places: NDArray[np.intp], times: int = 4) -> Samples:
    """(places,) the highest magnitude from each place up to the next sample, as it would be at
    ``times`` the rate."""
    filters, half = _bank(times, 1)
    padded = np.pad(samples, half)
    windows = sliding_window_view(padded, 2 * half)[places + 1]
    peaks: Samples = np.abs(windows @ filters.T).max(axis=1)
    return peaks


def resample(samples: Samples, source_rate: int, target_rate: int) -> Samples:
    """(frames,) or (frames, channels) at ``target_rate`` Hertz; the same array for equal rates."""
    if source_rate == target_rate:
        return samples
    if samples.ndim == 1:
        stream = Resampler(source_rate, target_rate)
        return np.concatenate([stream.feed(samples), stream.flush()])
    lanes = [resample(lane, source_rate, target_rate) for lane in samples.T]
    return np.stack(lanes, axis=1)
