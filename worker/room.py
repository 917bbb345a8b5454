"""How many rows a worker claims."""

from __future__ import annotations

from collections.abc import Iterable

from shared.lifecycle.working import Claim
from worker.engines.pool import EnginePool
from worker.execution import ShardRun
from worker.placement import Placement

FIRST_ROWS = {"text": 128}
"""Rows of a pool to claim before any of its engines has said how many it wants."""
OTHER_FIRST_ROWS = 8
"""… in pools where a row takes seconds: more would keep them from other workers."""


class Room:
    """Each pool has its own, so that waiting rows of one never keep another's out. While a model
    has waited for memory for long there is none at all: the engines run dry, and one makes way."""

    def __init__(self, engines: EnginePool, placement: Placement) -> None:
        self._engines = engines
        self._placement = placement

    def of(self, pool: str, runs: Iterable[ShardRun], reading: Iterable[Claim]) -> int:
        """What the engines of ``pool`` want on top of the rows that run and those being read."""
        if self._placement.starving:
            return 0
        held = sum(max(1, len(run.unfinished)) for run in runs if run.claim.pool == pool)
        held += sum(claim.row_count for claim in reading if claim.pool == pool)
        wanted = self._engines.capacity(pool) or FIRST_ROWS.get(pool, OTHER_FIRST_ROWS)
        return max(0, wanted - held)
