"""Which beginnings prompts have in common, and which are worth a prefill of their own. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_TOKENS = 8
"""Shorter beginnings are not worth a forward pass."""
LEAST_SAVED_TOKENS = 48
LEAST_SPLIT_TOKENS = 256
"""What prompts with more in common than the others must save before they go apart: they are then
prefilled in microbatches of their own."""

Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class Family:
    """Prompts that begin alike."""

    shared: int
    """How many tokens they begin with; 0 when that is not worth the while."""
    members: list[int]
    """Indices of the prompts."""
    uses: int
    """How many prompts have the beginning, those included that were seen before."""


def families(prompts: Sequence[Tokens], seen: Sequence[Tokens] = ()) -> list[Family]:
    """Each of ``prompts`` in one family; ``seen`` are earlier prompts, which count as uses.

    At least one token of each prompt stays outside of what it shares.
    """
    every = [tuple(prompt) for prompt in (*prompts, *seen)]
    order = sorted(range(len(every)), key=every.__getitem__)
    common = [agreeing(every[one], every[two]) for one, two in itertools.pairwise(order)]
    found: list[Family] = []
    waiting = [(0, len(order), 0)]
    while waiting:
        first, end, outer = waiting.pop()
        shared = min(common[first : end - 1], default=outer)
        own: list[int] = []
        for start, stop in _runs(common, first, end, shared):
            size = stop - start
            inner = min(common[start : stop - 1], default=shared)
            if size > 1 and (inner - shared) * (size - 1) >= LEAST_SPLIT_TOKENS:
                waiting.append((start, stop, shared))
            else:
                own += order[start:stop]
        members = sorted(index for index in own if index < len(prompts))
        if members:
            found.append(_family(shared, members, end - first, every))
    return found


def _runs(common: Sequence[int], first: int, end: int, shared: int) -> list[tuple[int, int]]:
    """The runs of [first, end) whose neighbours have more than ``shared`` tokens in common."""
    cuts = [place + 1 for place in range(first, end - 1) if common[place] <= shared]
    edges = [first, *cuts, end]
    return list(itertools.pairwise(edges))


def _family(shared: int, members: list[int], uses: int, every: Sequence[tuple[int, ...]]) -> Family:
    shared = min(shared, *(len(every[index]) - 1 for index in members))
    worth = shared >= LEAST_TOKENS and shared * (uses - 1) >= LEAST_SAVED_TOKENS
    return Family(shared if worth else 0, members, uses)


def agreeing(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with."""
    most = min(len(one), len(other))
    low, high = 0, most
    while low < high:  # slices are compared in C
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
