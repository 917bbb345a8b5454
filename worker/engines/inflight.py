"""The decisions of in-flight scheduling, without torch: who joins, with whom, and how many.

Lengths are tokens. A choice *needs* its prompt plus everything it may generate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_REGROW_AFTER_STEPS = 256
_LEAST_PREFILL_TOKENS = 64
_CELLS_PER_TOKEN = 8
"""Of the cache of one prefill, by the tokens that it may prefill."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scheduler may use."""

    slots: int
    """Most rows in one microbatch."""
    cache_tokens: int
    """Most cells of the cache: rows times the longest need among them."""
    prefill_tokens: int
    """Most tokens, padding included, of one prefill."""
    refill_at: int
    """How many slots must be free before waiting rows join, when not all of them fit."""


class Headroom:
    """The limits in force: halved by each out-of-memory, doubled back after calm steps."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = limits.slots
        self._calm_steps = 0

    @property
    def now(self) -> Limits:
        if self._slots == self._limits.slots:
            return self._limits
        share = self._slots / self._limits.slots
        return Limits(
            slots=self._slots,
            cache_tokens=self._limits.cache_tokens,
            prefill_tokens=max(_LEAST_PREFILL_TOKENS, int(self._limits.prefill_tokens * share)),
            refill_at=max(1, int(self._limits.refill_at * share)),
        )

    def shrink(self, rows: int) -> None:
        """A microbatch of ``rows`` ran out of memory."""
        self._slots = max(1, min(self._slots, rows) // 2)
        self._calm_steps = 0

    def calm(self) -> None:
        """A step went well."""
        if self._slots == self._limits.slots:
            return
        self._calm_steps += 1
        if self._calm_steps >= _REGROW_AFTER_STEPS:
            self._slots = min(self._limits.slots, self._slots * 2)
            self._calm_steps = 0


def joining(waiting: Sequence[int], active: Sequence[int], limits: Limits) -> int:
    """How many of the ``waiting`` needs, in order, join the ``active`` ones now.

    Nobody joins until ``refill_at`` slots are free, because a prefill of one row costs nearly
    as much as one of eight; unless all who wait fit, or nobody is active. First come, first
    served: a long row that does not fit holds back those behind it, so it cannot starve.
    """
    free = limits.slots - len(active)
    if not waiting or free <= 0:
        return 0
    if active and len(waiting) > free and free < limits.refill_at:
        return 0
    longest, joined = max(active, default=0), 0
    for need in waiting[:free]:
        longest = max(longest, need)
        if (len(active) + joined + 1) * longest > limits.cache_tokens:
            break
        joined += 1
    return joined


def prefill_groups(lengths: Sequence[int], most_tokens: int, *, shared: int = 0) -> list[list[int]]:
    """Splits prompts into prefills: indices, like lengths together, at most ``most_tokens`` each.

    The count includes padding. A prompt longer than ``most_tokens`` is alone in its group.
    ``lengths`` are without the beginning of ``shared`` tokens, which each row only copies; what
    the copies take is bounded, too.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        group = groups[-1] if groups else []
        longest = lengths[group[0]] if group else 0
        rows = len(group) + 1
        cells = rows * (longest + shared)
        if group and rows * longest <= most_tokens and cells <= _CELLS_PER_TOKEN * most_tokens:
            group.append(index)
        else:
            groups.append([index])
    return groups


def departures(kept: Sequence[bool]) -> list[tuple[int, int]]:
    """The moves ``(from slot, to slot)`` that make the kept rows compact again, fewest first."""
    moves: list[tuple[int, int]] = []
    target, source = 0, len(kept) - 1
    while True:
        while target < len(kept) and kept[target]:
            target += 1
        while source >= 0 and not kept[source]:
            source -= 1
        if target >= source:
            return moves
        moves.append((source, target))
        target, source = target + 1, source - 1
