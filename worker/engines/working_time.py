"""How long an engine worked for each row: the time of every step, shared out evenly among the rows
that it held meanwhile, running and waiting. So the rows' times add up to the engine's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from worker.engines.protocol import Row, RowResult


class WorkingTime:
    """The meter of one engine. What a step costs is one addition, however many rows there are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._share = 0.0
        """Seconds of a row that was here from the start."""
        self._came: dict[tuple[int, int, int], float] = {}

    def take(self, shard: int, epoch: int, rows: Iterable[Row]) -> None:
        """The engine holds these rows from here on."""
        for row in rows:
            self._came[shard, epoch, row.index] = self._share

    @contextmanager
    def step(self) -> Iterator[None]:
        """The engine works for as long as the block takes."""
        began = self._clock()
        yield
        if self._came:
            self._share += (self._clock() - began) / len(self._came)

    def forget_shard(self, shard: int, epoch: int) -> None:
        """Its rows were dropped."""
        for key in [key for key in self._came if key[:2] == (shard, epoch)]:
            del self._came[key]

    def told(self, results: Sequence[RowResult]) -> list[RowResult]:
        """The results with the seconds of their rows, which the engine holds no more."""
        return [
            msgspec.structs.replace(
                result,
                compute_seconds=self._share
                - self._came.pop((result.shard, result.epoch, result.index), self._share),
            )
            for result in results
        ]
