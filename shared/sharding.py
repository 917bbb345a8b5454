"""Where to cut a batch: shards of bounded rows, bytes and expected time.

Pure. A shard is what a killed worker has to do again and what a cancel waits for, so it is sized by
time first.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_ROWS = 256
MAX_BYTES = 8 * 2**20
MAX_RESULTS = 8_192
"""Vectors: a row may ask for 2,048, and a worker holds a shard's results until it is done."""
TARGET_SECONDS = 60.0
"""Aim of a shard's duration; with the estimate off by two either way it still takes 30-120 s."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of whole lines of the input file: bytes ``[start, end)``."""

    ordinal: int
    byte_start: int
    byte_end: int
    first_line: int
    """1-based number of the first line in the file."""
    row_count: int


@dataclass(slots=True)
class Cutter:
    """Fed one row at a time, in order; yields a slice whenever one is full.

    Blank lines belong to the slice around them and are not rows.
    """

    max_rows: int = MAX_ROWS
    max_bytes: int = MAX_BYTES
    target_seconds: float = TARGET_SECONDS
    max_results: int = MAX_RESULTS
    _ordinal: int = 0
    _start: int = 0
    _end: int = 0
    _line: int = 1
    _rows: int = 0
    _seconds: float = 0.0
    _results: int = 0

    def add(
        self, *, line: int, byte_start: int, byte_end: int, seconds: float, results: int = 1
    ) -> Slice | None:
        """Takes the row on ``line``; returns the slice before it when the row would overfill it.

        ``seconds`` is the row's share of an engine's time when it works at full load, ``results``
        how many texts or vectors it asks for.
        """
        full = self._rows > 0 and (
            self._rows >= self.max_rows
            or byte_end - self._start > self.max_bytes
            or self._seconds + seconds > self.target_seconds
            or self._results + results > self.max_results
        )
        done = self._cut() if full else None
        if self._rows == 0:
            self._start, self._line = byte_start, line
        self._rows += 1
        self._seconds += seconds
        self._results += results
        self._end = byte_end
        return done

    def last(self) -> Slice | None:
        """The unfinished slice at the end of the file, if any."""
        return self._cut() if self._rows else None

    def _cut(self) -> Slice:
        done = Slice(self._ordinal, self._start, self._end, self._line, self._rows)
        self._ordinal += 1
        self._rows = 0
        self._seconds = 0.0
        self._results = 0
        return done
