"""How loud a sound is (ITU-R BS.1770-4), how high its peaks are, and a limiter for them."""

from __future__ import annotations

from functools import lru_cache
from math import log10, pi, tan

import numpy as np
from numpy.typing import NDArray

from worker.engines.sounds.resampling import between, resample

Samples = NDArray[np.float32]

_STEP_SECONDS = 0.1
_STEPS_PER_BLOCK = 4
_HISTORY_SECONDS = 0.25
"""The weighting's response has died away to nothing after this."""
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
_PIECE = 2**16
_SUSPECT = 0.6
"""Of the ceiling: between samples that are both lower, voices and music stay below it."""


def _biquads(rate: int) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The two filters of the K weighting at any rate, as (numerator, denominator)."""
    k, q = tan(pi * 1681.974450955533 / rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band, unit = high**0.4996667741545416, 1 + k / q + k * k
    shelf = np.array([high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k])
    shelf_poles = np.array([1.0, 2 * (k * k - 1) / unit, (1 - k / q + k * k) / unit])
    k, q = tan(pi * 38.13547087602444 / rate), 0.5003270373238773
    bottom = 1 + k / q + k * k
    pass_poles = np.array([1.0, 2 * (k * k - 1) / bottom, (1 - k / q + k * k) / bottom])
    return [(shelf / unit, shelf_poles), (np.array([1.0, -2.0, 1.0]), pass_poles)]


@lru_cache(maxsize=4)
def _weighting(rate: int, size: int) -> NDArray[np.complex64]:
    """The K weighting's frequency response for a transform of ``size``."""
    turn = np.exp(-2j * pi * np.arange(size // 2 + 1) / size)
    powers = np.stack([np.ones_like(turn), turn, turn * turn])
    response = np.ones_like(turn)
    for zeros, poles in _biquads(rate):
        response *= (zeros @ powers) / (poles @ powers)
    weighting: NDArray[np.complex64] = response.astype(np.complex64)
    return weighting


class LoudnessMeter:
    """Integrated loudness of a mono stream, in constant memory but for 8 bytes per 100 ms."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._step = round(rate * _STEP_SECONDS)
        self._history = np.zeros(round(rate * _HISTORY_SECONDS), np.float32)
        self._rest = np.zeros(0, np.float32)
        self._energies: list[float] = []

    def feed(self, samples: Samples) -> None:
        """(n,) more samples."""
        room = _PIECE - len(self._history)
        for start in range(0, len(samples), room):
            self._add(self._weighted(samples[start : start + room]))

    def integrated(self) -> float | None:
        """LUFS of what was fed: blocks of 400 ms, gated at −70 LUFS and 10 LU below the mean.

        None for silence. A sound shorter than one block counts as one.
        """
        energies = np.array(self._energies)
        if len(energies) < _STEPS_PER_BLOCK:
            total = energies.sum() * self._step + float(np.square(self._rest).sum())
            blocks = np.array([total / max(1, len(energies) * self._step + len(self._rest))])
        else:
            kernel = np.full(_STEPS_PER_BLOCK, 1 / _STEPS_PER_BLOCK)
            blocks = np.convolve(energies, kernel, "valid")
        audible = blocks[blocks > _power(_ABSOLUTE_GATE)]
        if len(audible) == 0:
            return None
        gate = _power(_lufs(float(audible.mean())) + _RELATIVE_GATE)
        return _lufs(float(audible[audible > gate].mean()))

    def _weighted(self, samples: Samples) -> Samples:
        block = np.concatenate([self._history, samples])
        size = _PIECE if len(block) > _PIECE // 2 else 1 << (len(block) - 1).bit_length()
        spectrum = np.fft.rfft(block, size)
        spectrum *= _weighting(self._rate, size)
        weighted = np.fft.irfft(spectrum, size)[len(self._history) : len(block)]
        self._history = block[-len(self._history) :]
        return weighted.astype(np.float32, copy=False)

    def _add(self, weighted: Samples) -> None:
        waiting = np.concatenate([self._rest, weighted])
        steps = len(waiting) // self._step
        whole = waiting[: steps * self._step].reshape(steps, self._step)
        self._energies += np.square(whole).mean(axis=1, dtype=np.float64).tolist()
        self._rest = waiting[steps * self._step :].copy()


def _lufs(power: float) -> float:
    return -0.691 + 10 * log10(power)


def _power(lufs: float) -> float:
    return float(10 ** ((lufs + 0.691) / 10))


def integrated_loudness(samples: Samples, rate: int) -> float | None:
    """LUFS of a whole mono sound (frames,); None for silence."""
    meter = LoudnessMeter(rate)
    meter.feed(samples)
    return meter.integrated()


def true_peak(samples: Samples, rate: int) -> float:
    """The highest magnitude between the samples too, by fourfold oversampling; 1 is full scale."""
    if len(samples) == 0:
        return 0.0
    return float(np.abs(resample(samples, rate, 4 * rate)).max())


def limit(samples: Samples, rate: int, ceiling: float) -> Samples:
    """The mono sound with its true peaks under ``ceiling``: turned down smoothly around each peak
    that would pass it, 3 ms before to 3 ms after, and left alone elsewhere."""
    loud = np.abs(samples)
    suspects = loud > _SUSPECT * ceiling
    suspects[:-1] |= suspects[1:]
    places = np.flatnonzero(suspects)
    if len(places) == 0:
        return samples
    peaks = np.maximum(loud[places], between(samples, places))
    if float(peaks.max()) <= ceiling:
        return samples
    needed = np.ones(len(samples), np.float32)
    needed[places] = np.minimum(1.0, ceiling / peaks)
    reach = max(2, round(0.003 * rate))
    lowest = _sliding_minimum(np.pad(needed, 2 * reach, mode="edge"), 2 * reach + 1)
    window = np.hanning(2 * reach + 3)[1:-1]
    gain = np.convolve(lowest, window / window.sum(), "valid")
    return (samples * gain).astype(np.float32)


def _sliding_minimum(values: Samples, width: int) -> Samples:
    """The least of every ``width`` neighbours, by doubling: (n - width + 1,)."""
    span = 1
    while span < width:
        step = min(span, width - span)
        values = np.minimum(values[:-step], values[step:])
        span += step
    return values
