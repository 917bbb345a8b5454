"""Workers that take shards by a policy, load models for them and run them: events in order."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.simulation.load import Load, Request, Shard
from bench.simulation.policies import Policy, Running


@dataclass
class Outcome:
    """What a load met with."""

    waits: dict[Request, float]
    """From the request to the end of its last shard; those that have ended."""
    starts: dict[Request, float]
    """From the request to the claim of its first shard."""
    loads: int
    """Models that were loaded."""
    taken: list[Shard]
    """In the order in which workers took them."""
    idle_with_work: float = 0.0
    """Seconds in which a worker had nothing and something waited."""

    def of(self, tenant: str) -> list[float]:
        return [wait for request, wait in self.waits.items() if request.tenant == tenant]


@dataclass(slots=True)
class _Worker:
    number: int
    held: dict[int, Shard] = field(default_factory=dict)
    """Claimed shards, whether they run or wait for their model."""
    ready_at: dict[str, float] = field(default_factory=dict)
    """Of loaded models, in the order of their last use."""
    waiting: list[int] = field(default_factory=list)
    """Held, but there is no memory for their model."""

    def in_use(self, but: list[int]) -> set[str]:
        return {shard.model for number, shard in self.held.items() if number not in but}

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.held.values())


class Plant:
    """One run of a load under a policy. Nothing in it is random."""

    def __init__(self, load: Load, policy: Policy) -> None:
        self._load = load
        self._policy = policy
        self._workers = [_Worker(number) for number in range(load.workers)]
        self._shards: list[Shard] = []
        self._owner: list[Request] = []
        self._open: Counter[Request] = Counter()
        self._events: list[tuple[float, int, int, int]] = []
        """(time, order, worker, shard); worker -1: the request of that number is made."""
        self._order = 0
        self.outcome = Outcome({}, {}, 0, [])

    def run(self) -> Outcome:
        for number, request in enumerate(self._load.requests):
            self._at(request.at, -1, number)
        for now, events in self._moments():
            if self._load.until is not None and now > self._load.until:
                break
            for worker, number in events:
                if worker < 0:
                    self._ask(self._load.requests[number])
                else:
                    self._end(now, self._workers[worker], number)
            for each in self._workers:
                self._claim(now, each)
        return self.outcome

    def _moments(self) -> Iterator[tuple[float, list[tuple[int, int]]]]:
        """All that happens at one time is known before anybody claims."""
        while self._events:
            now = self._events[0][0]
            found: list[tuple[int, int]] = []
            while self._events and self._events[0][0] == now:
                _, _, worker, number = heapq.heappop(self._events)
                found.append((worker, number))
            yield now, found

    def _at(self, time: float, worker: int, number: int) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, worker, number))

    def _ask(self, request: Request) -> None:
        for shard in request.shards:
            self._policy.add(len(self._shards), shard)
            self._shards.append(shard)
            self._owner.append(request)
        self._open[request] = len(request.shards)

    def _claim(self, now: float, worker: _Worker) -> None:
        if (room := self._load.capacity - worker.rows) <= 0:
            return
        held = [shard for each in self._workers for shard in each.held.values()]
        running = Running({shard.tenant for shard in held}, {shard.model for shard in held})
        for number in self._policy.take(rows=room, loaded=set(worker.ready_at), running=running):
            shard = self._shards[number]
            worker.held[number] = shard
            worker.waiting.append(number)
            self.outcome.taken.append(shard)
            self.outcome.starts.setdefault(self._owner[number], now - self._owner[number].at)
        self._place(now, worker)

    def _place(self, now: float, worker: _Worker) -> None:
        """Starts what waits on the worker, as far as there is memory for its models."""
        for number in list(worker.waiting):
            shard = worker.held[number]
            if shard.model not in worker.ready_at and not self._make_room(worker):
                continue
            if shard.model not in worker.ready_at:
                worker.ready_at[shard.model] = now + self._load.load_seconds
                self.outcome.loads += 1
            ready = worker.ready_at.pop(shard.model)
            worker.ready_at[shard.model] = ready
            worker.waiting.remove(number)
            self._at(max(now, ready) + shard.seconds, worker.number, number)

    def _make_room(self, worker: _Worker) -> bool:
        if len(worker.ready_at) < self._load.slots:
            return True
        used = worker.in_use(worker.waiting)
        idle = next((model for model in worker.ready_at if model not in used), None)
        if idle is not None:
            del worker.ready_at[idle]
        return idle is not None

    def _end(self, now: float, worker: _Worker, number: int) -> None:
        request = self._owner[number]
        del worker.held[number]
        self._open[request] -= 1
        if not self._open[request]:
            self.outcome.waits[request] = now - request.at
        self._place(now, worker)


def idle_wait(request: Request, load: Load, policy: Policy) -> float:
    """What the request takes when nobody else asks for anything, from cold."""
    alone = Load(
        (request,),
        workers=load.workers,
        capacity=load.capacity,
        slots=load.slots,
        load_seconds=load.load_seconds,
    )
    return Plant(alone, policy).run().waits[request]
