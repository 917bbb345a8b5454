"""Common prompt beginnings, a template's preamble above all, prefilled once and copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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


Kept = tuple[str, tuple[int, ...]]
"""An adapter, or "" for none, and the tokens of a beginning that was prefilled with it."""


class PrefixStore:
    """The last few beginnings with their keys and values; any shorter part of one serves too.

    What one adapter made of a beginning is no use to the rows of another.
    """

    def __init__(self, forward: Forward, most_tokens: int) -> None:
        self._forward = forward
        self._most_tokens = most_tokens
        self._kept: dict[Kept, DynamicCache] = {}

    def begin(
        self, prompts: Sequence[Sequence[int]], adapters: Sequence[str] | None = None
    ) -> tuple[int, DynamicCache | None]:
        """A cache of ``len(prompts)`` rows holding their common beginning, and its length.

        ``adapters`` has the adapter of each prompt. (0, None) when nothing worth the while is
        shared.
        """
        owners = [""] * len(prompts) if adapters is None else adapters
        kinds = list(dict.fromkeys(owners))
        shared = min(common_length(prompts), self._most_tokens)
        head = tuple(prompts[0][:shared])
        best = {kind: self._best(kind, head) for kind in kinds}
        missing = [k for k in kinds if _agreeing(best[k][1], head) < _GOOD_ENOUGH * shared]
        for kind in kinds:  # the newest are not those that make room
            if best[kind] in self._kept:
                self._kept[best[kind]] = self._kept.pop(best[kind])
        saved = (len(prompts) - len(kinds)) * shared
        if missing and saved >= _LEAST_SAVED_TOKENS and shared >= LEAST_TOKENS:
            self._keep(head, missing, len(kinds))
            best |= {kind: (kind, head) for kind in missing}
        length = min(_agreeing(tokens, head) for _, tokens in best.values())
        if length < LEAST_TOKENS:
            return 0, None
        caches = [self._kept[best[kind]] for kind in kinds]
        return length, _copied(caches, [kinds.index(owner) for owner in owners], length)

    def clear(self) -> None:
        self._kept.clear()

    def _best(self, kind: str, head: Sequence[int]) -> Kept:
        own = (kept for kept in self._kept if kept[0] == kind)
        return max(own, key=lambda kept: _agreeing(kept[1], head), default=(kind, ()))

    def _keep(self, head: tuple[int, ...], kinds: Sequence[str], most: int) -> None:
        """Prefills ``head`` once for each of ``kinds``, together."""
        made = self._forward.prefill([head] * len(kinds), None, kinds)[1]
        for row, kind in enumerate(kinds):
            alone = made if len(kinds) == 1 else _row(made, row)
            self._kept[kind, head] = alone
        while len(self._kept) > max(_MOST_KEPT, most):
            del self._kept[next(iter(self._kept))]


def _agreeing(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _row(cache: DynamicCache, row: int) -> DynamicCache:
    """A copy of one row, so that the others' memory can go."""
    copy = DynamicCache()
    for index, (keys, values) in enumerate(states_of(cache)):
        copy.update(keys[row : row + 1].clone(), values[row : row + 1].clone(), index)
    return copy


def _copied(caches: Sequence[DynamicCache], owners: Sequence[int], length: int) -> DynamicCache:
    """Row i is the one row of the cache ``owners[i]``, up to ``length`` tokens."""
    copy = DynamicCache()
    for index, layers in enumerate(zip(*map(states_of, caches), strict=True)):
        if len(caches) == 1:
            shape = (len(owners), -1, -1, -1)
            keys, values = (states[:, :, :length].expand(shape) for states in layers[0])
        else:
            keys, values = (
                torch.cat([layer[part][:, :, :length] for layer in layers])[owners]
                for part in (0, 1)
            )
        copy.update(keys, values, index)
    return copy
