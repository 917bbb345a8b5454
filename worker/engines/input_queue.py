"""Rows that bring several texts each, read in microbatches of texts of like length."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from worker.engines.inflight import Headroom, Limits, prefill_groups

_Spec = TypeVar("_Spec")

TOO_LARGE = "one input alone does not fit the memory of this machine"


@dataclass(eq=False, slots=True)
class InputRow(Generic[_Spec]):
    """A row on its way."""

    shard: int
    epoch: int
    index: int
    spec: _Spec
    token_n: int
    answers: list[Any]
    """One for each of its texts, in order; None until it is there."""
    failure: str | None = None


@dataclass(eq=False, slots=True)
class Input(Generic[_Spec]):
    """One text of a row."""

    row: InputRow[_Spec]
    place: int
    tokens: list[int]
    notes: Any = field(default=None)
    """What the engine remembers of the text until the model has read it."""


class InputQueue(Generic[_Spec]):
    """Texts that wait, and the rows that wait for them.

    After an out-of-memory the microbatches are smaller for a while; see ``Headroom``.
    """

    def __init__(self, *, rows: int, tokens: int) -> None:
        """``rows`` and ``tokens``, padding included, are the most of one microbatch."""
        self._headroom = Headroom(Limits(rows, 2**62, tokens, 1))
        self._waiting: deque[Input[_Spec]] = deque()
        self._open: dict[InputRow[_Spec], int] = {}

    def __len__(self) -> int:
        """Rows that have not ended."""
        return len(self._open)

    def add(self, row: InputRow[_Spec], inputs: Sequence[Input[_Spec]]) -> None:
        self._open[row] = len(inputs)
        self._waiting.extend(inputs)

    def cancel(self, shard: int, epoch: int) -> None:
        gone = {row for row in self._open if (row.shard, row.epoch) == (shard, epoch)}
        self._open = {row: left for row, left in self._open.items() if row not in gone}
        self._waiting = deque(item for item in self._waiting if item.row not in gone)

    def take(self) -> list[Input[_Spec]]:
        """Of the texts at hand, the group of like lengths with the longest ones; may be empty."""
        if not self._waiting:
            return []
        limits = self._headroom.now
        window = list(self._waiting)[: 4 * limits.slots]
        lengths = [len(item.tokens) for item in window]
        group = prefill_groups(lengths, limits.prefill_tokens)[0][: limits.slots]
        taken = [window[index] for index in group]
        members = set(taken)
        self._waiting = deque(item for item in self._waiting if item not in members)
        return taken

    def settle(self, inputs: Sequence[Input[_Spec]]) -> list[InputRow[_Spec]]:
        """The texts have their answers; returns the rows that are complete with them."""
        self._headroom.calm()
        return self._close(inputs)

    def retreat(self, inputs: Sequence[Input[_Spec]]) -> list[InputRow[_Spec]]:
        """They were too much at once: they wait again, for smaller microbatches. A text that was
        alone fails its row, which is returned when it was the last."""
        if len(inputs) > 1:
            self._headroom.shrink(len(inputs))
            self._waiting.extendleft(reversed(inputs))
            return []
        inputs[0].row.failure = TOO_LARGE
        return self._close(inputs)

    def _close(self, inputs: Sequence[Input[_Spec]]) -> list[InputRow[_Spec]]:
        complete = []
        for item in inputs:
            self._open[item.row] -= 1
            if self._open[item.row] == 0:
                del self._open[item.row]
                complete.append(item.row)
        return complete
