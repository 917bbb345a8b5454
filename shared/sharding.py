"""Where to cut a batch: shards of bounded rows, bytes and expected time.

Pure. A shard is what a killed worker has to do again and what a cancel waits for, so it is sized by
time first.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from shared.quotas import NOTHING, Reservation

MAX_ROWS = 256
MAX_BYTES = 8 * 2**20
MAX_RESULTS = 8_192
"""Vectors: a row may ask for 2,048, and a worker holds a shard's results until it is done."""
TARGET_SECONDS = 60.0
"""Aim of a shard's duration; with the estimate off by two either way it still takes 30-120 s."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one pool: whole lines of the input file within bytes ``[start, end)``."""

    ordinal: int
    byte_start: int
    byte_end: int
    first_line: int
    """1-based number of the first line in the file."""
    row_count: int
    pool: str
    lines: Sequence[int] | None = None
    """The rows' line numbers, where rows of other pools lie between them; None when all rows
    between the bytes are the slice's."""
    model: str | None = None
    """Of the first row; the others may need other ones."""
    seconds: float = 0.0
    """What its rows are expected to take together; 0 when nobody knows."""
    reserved: Reservation = NOTHING
    """What its rows may consume at most."""


@dataclass(slots=True)
class Cutter:
    """Fed one row at a time, in order; yields a slice whenever one is full.

    Blank lines belong to the slice around them and are not rows.
    """

    max_rows: int = MAX_ROWS
    max_bytes: int = MAX_BYTES
    """From the first row's start to the last one's end, whatever lies between."""
    target_seconds: float = TARGET_SECONDS
    max_results: int = MAX_RESULTS
    pool: str = "text"
    _ordinal: int = 0
    _start: int = 0
    _end: int = 0
    _lines: array[int] = field(default_factory=lambda: array("I"))
    _seconds: float = 0.0
    _results: int = 0
    _model: str | None = None
    _reserved: Reservation = NOTHING
    _passed_over: bool = False
    _has_gaps: bool = False

    def add(
        self,
        *,
        line: int,
        byte_start: int,
        byte_end: int,
        seconds: float,
        results: int = 1,
        model: str | None = None,
        reserved: Reservation = NOTHING,
    ) -> Slice | None:
        """Takes the row on ``line``; returns the slice before it when the row would overfill it.

        ``seconds`` is the row's share of an engine's time when it works at full load, ``results``
        how many texts, vectors or steps it asks for, ``model`` the one that it needs, ``reserved``
        what it may consume at most.
        """
        full = bool(self._lines) and (
            len(self._lines) >= self.max_rows
            or byte_end - self._start > self.max_bytes
            or self._seconds + seconds > self.target_seconds
            or self._results + results > self.max_results
        )
        done = self._cut() if full else None
        if not self._lines:
            self._start, self._model = byte_start, model
        elif self._passed_over:
            self._has_gaps = True
        self._passed_over = False
        self._lines.append(line)
        self._seconds += seconds
        self._results += results
        self._reserved += reserved
        self._end = byte_end
        return done

    def pass_over(self) -> None:
        """The next row of the file is another pool's."""
        self._passed_over = True

    def last(self) -> Slice | None:
        """The unfinished slice at the end of the file, if any."""
        return self._cut() if self._lines else None

    def _cut(self) -> Slice:
        lines = self._lines
        done = Slice(
            self._ordinal,
            self._start,
            self._end,
            lines[0],
            len(lines),
            self.pool,
            lines if self._has_gaps else None,
            self._model,
            self._seconds,
            self._reserved,
        )
        self._ordinal += 1
        self._lines = array("I")
        self._seconds = 0.0
        self._results = 0
        self._reserved = NOTHING
        self._passed_over = self._has_gaps = False
        return done


class PoolCutters:
    """A cutter for each pool that the rows of one file need."""

    def __init__(self) -> None:
        self._cutters: dict[str, Cutter] = {}

    def add(
        self,
        pool: str,
        *,
        line: int,
        byte_start: int,
        byte_end: int,
        seconds: float,
        results: int = 1,
        model: str | None = None,
        reserved: Reservation = NOTHING,
    ) -> Slice | None:
        """Like ``Cutter.add``, for a row of ``pool``; ordinals count within the pool."""
        cutter = self._cutters.get(pool)
        if cutter is None:
            cutter = self._cutters[pool] = Cutter(pool=pool)
        for other in self._cutters.values():
            if other is not cutter:
                other.pass_over()
        return cutter.add(
            line=line,
            byte_start=byte_start,
            byte_end=byte_end,
            seconds=seconds,
            results=results,
            model=model,
            reserved=reserved,
        )

    def rest(self) -> list[Slice]:
        """The unfinished slices at the end of the file."""
        last = (cutter.last() for cutter in self._cutters.values())
        return [part for part in last if part is not None]


def in_order(slices: Iterable[Slice]) -> list[Slice]:
    """The slices of a file by their first line, numbered so."""
    ordered = sorted(slices, key=lambda part: part.first_line)
    return [replace(part, ordinal=number) for number, part in enumerate(ordered)]
