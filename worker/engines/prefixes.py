"""Common prompt beginnings, a template's preamble above all, prefilled once and copied."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from worker.engines.beginnings import (
    LEAST_SAVED_TOKENS,
    LEAST_SPLIT_TOKENS,
    LEAST_TOKENS,
    Family,
    agreeing,
    families,
)
from worker.engines.forward import Forward
from worker.engines.slot_cache import states_of

_MOST_KEPT = 4
_MOST_SEEN = 32
_MOST_SEEN_OF_FAMILY = 8
_GOOD_ENOUGH = 0.75


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with; at least one token of each row stays outside."""
    shortest = min(map(len, rows)) - 1
    return max(0, min([shortest, *(agreeing(rows[0], row) for row in rows[1:])]))


Kept = tuple[str, tuple[int, ...]]
"""An adapter, or "" for none, and the tokens of a beginning that was prefilled with it."""
Begun = tuple[int, DynamicCache | None]
"""How many tokens of every row a cache holds, and the cache."""


@dataclass(eq=False, slots=True)
class _Making:
    """A beginning on its way; a long one takes several forward passes."""

    head: tuple[int, ...]
    kinds: list[str]
    done: int
    cache: DynamicCache | None


class PrefixStore:
    """The last few beginnings with their keys and values; any shorter part of one serves too.

    What one adapter made of a beginning is no use to the rows of another.
    """

    def __init__(
        self, forward: Forward, most_tokens: int, *, most_kept_tokens: int = 0, share: bool = True
    ) -> None:
        """``most_tokens`` in a forward pass, and ``most_kept_tokens`` in all that is kept; nothing
        is shared without ``share``."""
        self._forward = forward
        self._most_tokens = most_tokens
        self._most_kept_tokens = max(most_tokens, most_kept_tokens)
        self._share = share
        self._kept: dict[Kept, DynamicCache] = {}
        self._making: _Making | None = None
        self._seen: deque[tuple[int, ...]] = deque(maxlen=_MOST_SEEN)

    def families(self, prompts: Sequence[Sequence[int]]) -> list[Family]:
        """Prompts that are to be prefilled, by what they share with each other, with what is kept
        and with those that came before: rows of one batch arrive in waves."""
        if not self._share:
            return [Family(0, list(range(len(prompts))), 1)]
        heads = [tuple(prompt[: self._most_kept_tokens + 1]) for prompt in prompts]
        found = families(heads, [*self._seen, *(tokens for _, tokens in self._kept)])
        for family in found:
            for index in family.members[:_MOST_SEEN_OF_FAMILY]:
                if heads[index] not in self._seen:
                    self._seen.append(heads[index])
        return found

    def begin(
        self,
        prompts: Sequence[Sequence[int]],
        adapters: Sequence[str] | None = None,
        *,
        shared: int | None = None,
        uses: int | None = None,
    ) -> Begun | None:
        """A cache of ``len(prompts)`` rows holding their common beginning, and its length.

        ``adapters`` has the adapter of each prompt; ``shared`` and ``uses`` are those of the
        prompts' family, by default of the prompts alone. (0, None) when nothing worth the while
        is shared; None while a long beginning is being made: ask again in the next step.
        """
        owners = [""] * len(prompts) if adapters is None else adapters
        kinds = list(dict.fromkeys(owners))
        uses = len(prompts) if uses is None else uses
        shared = common_length(prompts) if shared is None else shared
        head = tuple(prompts[0][: min(shared, self._most_kept_tokens)])
        best = {kind: self._best(kind, head) for kind in kinds}
        missing = [kind for kind in kinds if self._lacks(best[kind], head, uses)]
        for kind in kinds:  # the newest are not those that make room
            if best[kind] in self._kept:
                self._kept[best[kind]] = self._kept.pop(best[kind])
        saved = (uses - len(kinds)) * len(head)
        if missing and saved >= LEAST_SAVED_TOKENS and len(head) >= LEAST_TOKENS:
            if not self._make(head, missing, len(kinds)):
                return None
            best |= {kind: (kind, head) for kind in missing}
        length = min(agreeing(tokens, head) for _, tokens in best.values())
        if length < LEAST_TOKENS:
            return 0, None
        caches = [self._kept[best[kind]] for kind in kinds]
        return length, _copied(caches, [kinds.index(owner) for owner in owners], length)

    def clear(self) -> None:
        self._kept.clear()
        self._making = None

    def _best(self, kind: str, head: Sequence[int]) -> Kept:
        own = (kept for kept in self._kept if kept[0] == kind)
        return max(own, key=lambda kept: agreeing(kept[1], head), default=(kind, ()))

    @staticmethod
    def _lacks(best: Kept, head: tuple[int, ...], uses: int) -> bool:
        length = agreeing(best[1], head)
        rest = (len(head) - length) * uses
        return length < _GOOD_ENOUGH * len(head) or rest > LEAST_SPLIT_TOKENS

    def _make(self, head: tuple[int, ...], kinds: list[str], most: int) -> bool:
        """Prefills a piece of ``head`` once for each of ``kinds``, together; whether it is done."""
        making = self._making
        if making is None or (making.head, making.kinds) != (head, kinds):
            making = _Making(head, kinds, *self._known(head, kinds))
        piece = max(1, self._most_tokens // len(kinds))
        tokens = head[making.done : making.done + piece]
        making.cache = self._forward.prefill([tokens] * len(kinds), making.cache, kinds)[1]
        making.done += len(tokens)
        done = making.done >= len(head)
        self._making = None if done else making
        if done:
            self._keep(making, most)
        return done

    def _known(self, head: tuple[int, ...], kinds: list[str]) -> Begun:
        """What is kept of a new beginning."""
        best = self._best(kinds[0], head)
        length = agreeing(best[1], head)
        if len(kinds) > 1 or not LEAST_TOKENS <= length < len(head):
            return 0, None
        return length, _copied([self._kept[best]], [0], length)

    def _keep(self, making: _Making, most: int) -> None:
        if making.cache is None:
            raise RuntimeError("a beginning was made without a cache")
        for row, kind in enumerate(making.kinds):
            alone = making.cache if len(making.kinds) == 1 else _row(making.cache, row)
            self._kept[kind, making.head] = alone
        while len(self._kept) > most and (
            len(self._kept) > _MOST_KEPT or self._kept_tokens() > self._most_kept_tokens
        ):
            del self._kept[next(iter(self._kept))]

    def _kept_tokens(self) -> int:
        return sum(len(tokens) for _, tokens in self._kept)


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
