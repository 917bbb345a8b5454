"""What rows say before they have ended, from their engines to the database."""

from __future__ import annotations

import time

import msgspec

from shared.lifecycle.working import Held, NewDelta
from worker.engines.protocol import Piece, RowDelta
from worker.execution import ShardRun

WRITE_SECONDS = 0.1
"""Between two writes: what all rows of the process said meanwhile is one statement."""
OUTAGE_SECONDS = 1.0
"""Before another try, when the database did not take them."""


class Streams:
    """What rows said and nobody was told yet. Owned by the supervisor's thread; it knows only of
    rows that are read along, and costs the others nothing."""

    def __init__(self) -> None:
        self._said: dict[Held, list[Piece]] = {}
        self._numbers: dict[Held, int] = {}
        self._untold: list[NewDelta] = []
        """Numbered, and perhaps told: told again they must be as they were."""
        self._write_after = 0.0

    def note(self, run: ShardRun | None, row: RowDelta) -> None:
        """An engine's word; ``run`` is None when nobody wants it."""
        if run is not None and not run.is_batch and not run.ending:
            self._said.setdefault(run.held, []).extend(row.pieces)

    def forget(self, held: Held) -> None:
        """The shard is off the books: its result has it all."""
        self._said.pop(held, None)
        if self._numbers.pop(held, None) is not None:
            self._untold = [delta for delta in self._untold if delta.held != held]

    def due_at(self) -> float | None:
        """When to write, by ``time.monotonic``; None while there is nothing to write."""
        return self._write_after if self._said or self._untold else None

    def take(self) -> list[NewDelta]:
        """What is to be told now, in order; ``told`` or ``postpone`` says what became of it."""
        self._write_after = time.monotonic() + WRITE_SECONDS
        for held, pieces in self._said.items():
            number = self._numbers.get(held, 0)
            self._numbers[held] = number + 1
            told = [_short(piece) for piece in pieces]
            self._untold.append(NewDelta(held, number, msgspec.json.encode(told).decode()))
        self._said.clear()
        return self._untold

    def told(self) -> None:
        self._untold = []

    def postpone(self) -> None:
        """The database did not take it, or did not say so."""
        self._write_after = time.monotonic() + OUTAGE_SECONDS


def _short(piece: Piece) -> Piece | tuple[int, int, str]:
    """Without what most pieces don't have."""
    return (piece.choice, piece.at, piece.text) if piece.logprobs is None else piece
