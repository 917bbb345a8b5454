"""Common prompt beginnings, a template's preamble above all, prefilled once and copied."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import DynamicCache

from worker.engines.forward import Forward
from worker.engines.slot_cache import states_of

LEAST_TOKENS = 8
"""Shorter beginnings are not worth a forward pass."""
_LEAST_SAVED_TOKENS = 48
_MOST_KEPT = 4
_GOOD_ENOUGH = 0.75


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with; at least one token of each row stays outside."""
    first, limit = rows[0], min(map(len, rows)) - 1
    for place in range(limit):
        token = first[place]
        if any(row[place] != token for row in rows):
            return place
    return max(0, limit)


class PrefixStore:
    """The last few beginnings with their keys and values; any shorter part of one serves too."""

    def __init__(self, forward: Forward, most_tokens: int) -> None:
        self._forward = forward
        self._most_tokens = most_tokens
        self._kept: dict[tuple[int, ...], DynamicCache] = {}

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[int, DynamicCache | None]:
        """A cache of ``len(prompts)`` rows holding their common beginning, and its length.

        (0, None) when nothing worth the while is shared.
        """
        shared = min(common_length(prompts), self._most_tokens)
        head = tuple(prompts[0][:shared])
        best = max(self._kept, key=lambda kept: _agreeing(kept, head), default=())
        length = _agreeing(best, head)
        fresh = (len(prompts) - 1) * shared >= _LEAST_SAVED_TOKENS and shared >= LEAST_TOKENS
        if fresh and length < _GOOD_ENOUGH * shared:
            best, length = head, shared
            self._keep(head)
        if length < LEAST_TOKENS:
            return 0, None
        self._kept[best] = self._kept.pop(best)
        return length, _copied(self._kept[best], len(prompts), length)

    def clear(self) -> None:
        self._kept.clear()

    def _keep(self, head: tuple[int, ...]) -> None:
        self._kept[head] = self._forward.prefill([head])[1]
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]


def _agreeing(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _copied(cache: DynamicCache, rows: int, length: int) -> DynamicCache:
    copy = DynamicCache()
    for index, (keys, values) in enumerate(states_of(cache)):
        shape = (rows, -1, -1, -1)
        copy.update(keys[:, :, :length].expand(shape), values[:, :, :length].expand(shape), index)
    return copy
