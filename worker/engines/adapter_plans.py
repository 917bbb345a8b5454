"""How rows with different adapters share a forward pass: pure decisions.

Rows of one adapter are a group, and groups of like size a tier: a tier is one batched matrix
product, in which the smaller groups are padded to the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MOST_PADDING = 2
"""A tier computes at most so many times the rows that it has."""


@dataclass(frozen=True, slots=True)
class TierPlan:
    """Groups that are computed together."""

    keys: tuple[str, ...]
    """The adapters, sorted, so that the same ones are always in the same order."""
    groups: tuple[tuple[int, ...], ...]
    """The rows of each."""

    @property
    def height(self) -> int:
        """Rows of each group, padding included."""
        return max(map(len, self.groups))

    @property
    def taken(self) -> list[int]:
        """The row at each place, ``height`` places a group; a group's first row is its padding."""
        height = self.height
        return [
            row for group in self.groups for row in (*group, *[group[0]] * (height - len(group)))
        ]

    @property
    def places(self) -> list[int]:
        """Those places that are rows and not padding."""
        height = self.height
        return [
            number * height + place
            for number, group in enumerate(self.groups)
            for place in range(len(group))
        ]


def plan_tiers(keys: Sequence[str]) -> list[TierPlan]:
    """Tiers for rows of these adapters; rows of none (``""``) are in no tier."""
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if key:
            groups.setdefault(key, []).append(row)
    tiers: list[list[str]] = []
    height = rows = 0
    for key in sorted(groups, key=lambda key: (-len(groups[key]), key)):
        size = len(groups[key])
        if tiers and (len(tiers[-1]) + 1) * height <= _MOST_PADDING * (rows + size):
            tiers[-1].append(key)
            rows += size
        else:
            tiers.append([key])
            height = rows = size
    return [
        TierPlan(tuple(sorted(tier)), tuple(tuple(groups[key]) for key in sorted(tier)))
        for tier in tiers
    ]
