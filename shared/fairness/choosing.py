"""Which shards a worker takes next: the fairest tenant's, unless a loaded model may go first.

Each tenant of a pool has a virtual time: the work that it was given, divided by its weight. The
tenant with the least is the fairest; taking a shard of it moves its time on by the shard's work
over its weight. A tenant that comes back from doing nothing starts at the pool's time, which is
that of the fairest tenant when somebody was last served: waiting for nothing earns no credit.

Affinity passes over the fairest tenant for a shard whose model is loaded, or for one that nobody
runs where a model has to be loaded anyway; but only

- for a tenant at most ``patience`` ahead of it in virtual time;
- when the fairest, and every tenant that is passed over, has something running, or waits for a
  model that runs somewhere: the worker that has it will be free before long, and takes it first.
  Whoever has nothing, and needs what nobody has, waits for its turn alone.

A tenant's own shards give way to each other by the same wish, within one priority, and to no shard
that came more than ``OWN_STEPS`` places after them.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from shared.fairness.line import InLine, Waiting

PATIENCE = 1024.0
"""Expected seconds, over a weight of one: four slices of a batch."""
OWN_STEPS = 64
"""Places of a tenant's own line."""


@dataclass(frozen=True, slots=True)
class Pick:
    """A shard to be taken."""

    shard: Waiting
    tenant_id: str
    start: float
    """The tenant's virtual time when it is."""
    pool_time: float
    """The pool's."""


@dataclass(slots=True)
class _Turn:
    """A tenant while it is chosen from."""

    line: InLine
    start: float
    served: bool
    room: int | None
    left: list[Waiting] = field(default_factory=list)

    def best(self, loaded: Collection[str]) -> int | None:
        """The place in ``left`` of its first shard that may go ahead with a loaded model."""
        head = self.left[0]
        for place, shard in enumerate(self.left):
            if shard.priority != head.priority or shard.seq - head.seq > OWN_STEPS:
                return None
            if shard.model is None or shard.model in loaded:
                return place
        return None


def choose(
    line: Sequence[InLine],
    *,
    pool_time: float,
    max_shards: int,
    max_rows: int,
    loaded: Collection[str] = (),
    in_use: Collection[str] = (),
    patience: float = PATIENCE,
) -> list[Pick]:
    """The next shards for a worker with room for ``max_shards``, until ``max_rows`` rows are
    taken, that has the models ``loaded``; ``in_use`` are those of shards that run anywhere in the
    pool.

    It ends early at the turn of a tenant whose next shards the line-up does not show, but is never
    empty when the line-up has a shard of a tenant with room and the worker has some too.
    """
    turns = _Turns(line, in_use)
    near = set(loaded)
    picks: list[Pick] = []
    rows = 0
    while len(picks) < max_shards and rows < max_rows and (fairest := turns.fairest()):
        if not fairest.left:
            break
        pool_time = max(pool_time, fairest.start)
        turn, place = turns.next(fairest, near, patience)
        shard = turn.left.pop(place)
        picks.append(Pick(shard, turn.line.tenant_id, turn.start, pool_time))
        rows += shard.rows
        if shard.model is not None:
            near.add(shard.model)
        turns.took(turn, shard)
    return picks


class _Turns:
    """Tenants by their virtual time."""

    def __init__(self, line: Sequence[InLine], in_use: Collection[str]) -> None:
        self._in_use = in_use
        self._heap = [
            (item.start, item.tenant_id, _Turn(item, item.start, item.served, item.room, [*given]))
            for item in line
            if (given := item.shards) and item.room != 0
        ]
        heapq.heapify(self._heap)

    def fairest(self) -> _Turn | None:
        """With nothing left only when more of it waits than the line-up shows."""
        return self._heap[0][2] if self._heap else None

    def next(self, fairest: _Turn, loaded: Collection[str], patience: float) -> tuple[_Turn, int]:
        """Who goes now, and which of its shards: the first with a loaded model; or else the first
        with a model that nobody runs, which is best loaded here; or else the fairest."""
        if (place := fairest.best(loaded)) is not None:
            return fairest, place
        unused = None
        for turn in self._in_order():
            if turn.start > fairest.start + patience:
                break
            if not turn.left:
                continue
            if (place := turn.best(loaded)) is not None:
                return turn, place
            if turn.left[0].model not in self._in_use:
                unused = unused or turn
                if not turn.served:
                    break
        return unused or fairest, 0

    def took(self, turn: _Turn, shard: Waiting) -> None:
        """The tenant was given the shard."""
        index = next(n for n, entry in enumerate(self._heap) if entry[2] is turn)
        turn.start += shard.work / turn.line.weight
        turn.served = True
        if turn.room is not None:
            turn.room -= 1
        stays = turn.room != 0 and (turn.left or turn.line.more)
        if stays and index == 0:
            heapq.heapreplace(self._heap, (turn.start, turn.line.tenant_id, turn))
            return
        del self._heap[index]
        if stays:
            self._heap.append((turn.start, turn.line.tenant_id, turn))
        heapq.heapify(self._heap)

    def _in_order(self) -> Iterator[_Turn]:
        yield from (turn for _, _, turn in sorted(self._heap, key=lambda entry: entry[:2]))
