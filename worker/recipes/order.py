"""Which rows a step has, and where its random numbers come from: functions of numbers alone.

Nothing here remembers anything, so a training that was killed goes on with exactly the rows and
numbers that it would have had.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, examples: int) -> Sequence[int]:
    """The rows of an epoch (from 0), shuffled."""
    order = list(range(examples))
    random.Random(f"order {seed} {epoch}").shuffle(order)  # noqa: S311 - repeatable is the point
    return order


def step_rows(seed: int, step: int, batch_size: int, examples: int) -> list[int]:
    """The rows of a step (from 1): epochs follow one another without a gap, so every step has as
    many rows, and every row comes once in an epoch."""
    first = (step - 1) * batch_size
    rows: list[int] = []
    while len(rows) < batch_size:
        epoch, at = divmod(first + len(rows), examples)
        rows += epoch_order(seed, epoch, examples)[at : at + batch_size - len(rows)]
    return rows


def microbatches(
    rows: Sequence[int],
    *,
    rank: int,
    processes: int,
    accumulation: int,
    lengths: Sequence[int] | None = None,
) -> list[list[int]]:
    """A process's share of a step. Sorted by length, all processes get about as much to do, and
    rows that are padded together are about as long."""
    if lengths is not None:
        rows = sorted(rows, key=lambda row: lengths[row])
    mine = list(rows[rank::processes])
    size = len(mine) // accumulation
    return [mine[start : start + size] for start in range(0, size * accumulation, size)]


def step_seed(seed: int, step: int, rank: int) -> int:
    """63 bits for a step of a process; step 0 is setting up, the same on every process."""
    digest = hashlib.sha256(f"step {seed} {step} {rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
