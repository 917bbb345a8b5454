"""An index of band hashes in 8 bytes each: sorted runs that are merged as they grow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

GROWTH = 4
"""A run is merged with the one before it unless that is this many times as long."""

Keys = npt.NDArray[np.uint32]


class Grown:
    """Rows of numbers that are appended to; an eighth of room to spare."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._room = np.zeros((0, *shape), np.uint64)
        self._length = 0

    @property
    def filled(self) -> npt.NDArray[np.uint64]:
        return self._room[: self._length]

    def extend(self, rows: npt.NDArray[np.uint64]) -> None:
        length = self._length + len(rows)
        if length > len(self._room):
            room = np.zeros((length + length // 8, *self._room.shape[1:]), np.uint64)
            room[: self._length] = self.filled
            self._room = room
        self._room[self._length : length] = rows
        self._length = length


class Runs:
    """Each entry is a band's hash and, in the lower half, the number of the text. A run is a sorted
    array a band."""

    def __init__(self, bands: int) -> None:
        self._bands = bands
        self._runs: list[list[npt.NDArray[np.uint64]]] = []

    def add(self, keys: Keys, first: int) -> None:
        """``keys`` is (texts, bands); the texts are numbered from ``first``."""
        if not len(keys):
            return
        numbers = np.arange(first, first + len(keys), dtype=np.uint64)
        run = [np.sort(_entries(keys[:, band]) | numbers) for band in range(self._bands)]
        while self._runs and len(self._runs[-1][0]) < GROWTH * len(run[0]):
            before = self._runs.pop()
            for band in range(self._bands):
                merged = np.concatenate((before[band], run[band]))
                merged.sort(kind="stable")  # which sees that it is two sorted parts
                run[band] = merged
        self._runs.append(run)

    def sharing(self, keys: Keys) -> dict[int, npt.NDArray[np.uint32]]:
        """The texts that share a band with a row of ``keys``, in order, by the row's index."""
        found: dict[int, list[npt.NDArray[np.uint64]]] = {}
        for run in self._runs:
            for band in range(self._bands):
                wanted = _entries(keys[:, band])
                starts = np.searchsorted(run[band], wanted)
                ends = np.searchsorted(run[band], wanted | np.uint64(2**32 - 1), side="right")
                for at in np.flatnonzero(ends > starts).tolist():
                    found.setdefault(at, []).append(run[band][starts[at] : ends[at]])
        return {at: _numbers(parts) for at, parts in found.items()}


def _entries(keys: Keys) -> npt.NDArray[np.uint64]:
    return keys.astype(np.uint64) << np.uint64(32)


def _numbers(parts: list[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint32]:
    return np.unique((np.concatenate(parts) & np.uint64(2**32 - 1)).astype(np.uint32))
