"""Who is next: fair as the claims are, first come first served, or whatever is loaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from bench.simulation.load import Shard
from shared.fairness import PATIENCE, InLine, Waiting, choose

WINDOW = 32
MOST_SHARDS = 64


class Running(NamedTuple):
    """What runs anywhere."""

    tenants: Collection[str]
    models: Collection[str]


class Policy(Protocol):
    """A line of shards that wait, and the order in which workers take them."""

    def add(self, number: int, shard: Shard) -> None: ...

    def take(self, *, rows: int, loaded: Collection[str], running: Running) -> list[int]:
        """Numbers of shards for a worker with room for so many ``rows`` that has models
        ``loaded``."""


@dataclass
class Fair:
    """``shared.fairness``, over what the ready window of each tenant would show."""

    weights: Mapping[str, float]
    patience: float = PATIENCE
    _lines: dict[str, deque[Waiting]] = field(default_factory=dict)
    _times: dict[str, float] = field(default_factory=dict)
    _pool_time: float = 0.0

    def add(self, number: int, shard: Shard) -> None:
        line = self._lines.setdefault(shard.tenant, deque())
        line.append(Waiting(number, shard.rows, shard.work, shard.model, 0, number))

    def take(self, *, rows: int, loaded: Collection[str], running: Running) -> list[int]:
        taken: list[int] = []
        near = set(loaded)
        while rows > 0 and len(taken) < MOST_SHARDS and (line := self._line_up(running)):
            picks = choose(
                line,
                pool_time=self._pool_time,
                max_shards=MOST_SHARDS - len(taken),
                max_rows=rows,
                loaded=near,
                in_use=running.models,
                patience=self.patience,
            )
            for pick in picks:
                self._lines[pick.tenant_id].remove(pick.shard)
                spent = pick.shard.work / self.weights.get(pick.tenant_id, 1.0)
                self._times[pick.tenant_id] = pick.start + spent
                self._pool_time = pick.pool_time
                rows -= pick.shard.rows
                near.add(str(pick.shard.model))
                taken.append(pick.shard.shard_id)
        return taken

    def _line_up(self, running: Running) -> list[InLine]:
        return [
            InLine(
                tenant,
                self.weights.get(tenant, 1.0),
                max(self._times.get(tenant, 0.0), self._pool_time),
                tenant in running.tenants,
                None,
                [line[n] for n in range(min(WINDOW, len(line)))],
                more=len(line) > WINDOW,
            )
            for tenant, line in self._lines.items()
            if line
        ]


@dataclass
class Fifo:
    """First come, first served, whoever it is."""

    _line: deque[tuple[int, Shard]] = field(default_factory=deque)

    def add(self, number: int, shard: Shard) -> None:
        self._line.append((number, shard))

    def take(self, *, rows: int, loaded: Collection[str], running: Running) -> list[int]:
        taken: list[int] = []
        while rows > 0 and self._line and len(taken) < MOST_SHARDS:
            number, shard = self._line.popleft()
            taken.append(number)
            rows -= shard.rows
        return taken


@dataclass
class Greedy:
    """The oldest shard of a loaded model while there is any, else the oldest."""

    _lines: dict[str, deque[tuple[int, Shard]]] = field(default_factory=dict)

    def add(self, number: int, shard: Shard) -> None:
        self._lines.setdefault(shard.model, deque()).append((number, shard))

    def take(self, *, rows: int, loaded: Collection[str], running: Running) -> list[int]:
        taken: list[int] = []
        near = set(loaded)
        while rows > 0 and len(taken) < MOST_SHARDS:
            waiting = {model for model, line in self._lines.items() if line}
            if not waiting:
                break
            model = min(waiting & near or waiting, key=lambda name: self._lines[name][0][0])
            number, shard = self._lines[model].popleft()
            taken.append(number)
            rows -= shard.rows
            near.add(model)
        return taken
