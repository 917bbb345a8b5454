"""Which examples are held out for validation: a pure, repeatable decision."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence


def held_out_count(examples: int, share: float) -> int:
    """At least one, never all; 0 where there is nothing to part."""
    if examples < 2:  # noqa: PLR2004 - one for each side
        return 0
    return min(examples - 1, max(1, round(examples * share)))


def hold_out(labels: Sequence[int], share: float, seed: int) -> bytearray:
    """A byte for each example, 1 where it is held out, the same for the same arguments.

    ``labels`` are numbers of classes, all 0 when there are none. Each class gives its share,
    rounded so that the total is ``held_out_count``, and keeps at least one example for training.
    """
    chosen = bytearray(len(labels))
    members: dict[int, array[int]] = {}
    for place, label in enumerate(labels):
        members.setdefault(label, array("L")).append(place)
    sizes = {label: len(places) for label, places in members.items()}
    for label, count in _shares(sizes, share).items():
        picked = random.Random(f"{seed}:{label}").sample(members[label], count)  # noqa: S311
        for place in picked:
            chosen[place] = 1
    return chosen


def _shares(sizes: dict[int, int], share: float) -> dict[int, int]:
    """How many each class gives: whole parts first, then the largest remainders."""
    left = held_out_count(sum(sizes.values()), share)
    counts = {label: min(size - 1, int(size * share)) for label, size in sizes.items()}
    left -= sum(counts.values())
    while left > 0:
        able = [label for label, size in sizes.items() if counts[label] < size - 1]
        if not able:  # every class has a single example
            label = min((each for each in sizes if counts[each] == 0), default=None)
            if label is None:
                break
            counts[label] = 1
            left -= 1
            continue
        able.sort(key=lambda label: (counts[label] - sizes[label] * share, label))
        for label in able[:left]:
            counts[label] += 1
            left -= 1
    return counts
