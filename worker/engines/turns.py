"""Several schedulers over one model, one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from worker.engines.text_rows import Choice


class Lane(Protocol):
    """A scheduler that can let go of the model."""

    @property
    def name(self) -> str: ...

    @property
    def active(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def resident_bytes(self) -> int: ...

    @property
    def detail(self) -> dict[str, Any]: ...

    def add(self, choices: Sequence[Choice]) -> None: ...

    def drop(self, gone: Callable[[Choice], bool]) -> None: ...

    def step(self) -> list[Choice]: ...

    def rest(self) -> None:
        """Leaves the model to the other lanes; called when it has nothing to do."""


class Turns:
    """Sends each choice to its lane; a lane has the model until it is empty.

    While choices wait for another lane, the one at work takes at most ``quota`` more, so nobody
    starves.
    """

    def __init__(
        self, lanes: Mapping[str, Lane], lane_of: Callable[[Choice], str], quota: int
    ) -> None:
        self._lanes = dict(lanes)
        self._lane_of = lane_of
        self._quota = quota
        self._queues: dict[str, deque[Choice]] = {name: deque() for name in lanes}
        self._arrivals: deque[str] = deque()
        self._current = next(iter(lanes))
        self._taken = 0

    @property
    def name(self) -> str:
        return " + ".join(dict.fromkeys(lane.name for lane in self._lanes.values()))

    @property
    def active(self) -> int:
        return self._lanes[self._current].active

    @property
    def waiting(self) -> int:
        queued = sum(map(len, self._queues.values()))
        return queued + self._lanes[self._current].waiting

    @property
    def resident_bytes(self) -> int:
        return sum(lane.resident_bytes for lane in self._lanes.values())

    @property
    def detail(self) -> dict[str, Any]:
        return {name: lane.detail for name, lane in self._lanes.items()}

    def add(self, choices: Sequence[Choice]) -> None:
        for choice in choices:
            name = self._lane_of(choice)
            if not self._queues[name]:
                self._arrivals.append(name)
            self._queues[name].append(choice)

    def drop(self, gone: Callable[[Choice], bool]) -> None:
        for name, queue in self._queues.items():
            self._queues[name] = deque(choice for choice in queue if not gone(choice))
        self._arrivals = deque(name for name in self._arrivals if self._queues[name])
        self._lanes[self._current].drop(gone)

    def step(self) -> list[Choice]:
        lane = self._lanes[self._current]
        if not lane.active and not lane.waiting and self._arrivals:
            if self._arrivals[0] != self._current:
                lane.rest()
                self._current = self._arrivals[0]
                lane = self._lanes[self._current]
            self._taken = 0
        self._feed(lane)
        return lane.step()

    def rest(self) -> None:
        for lane in self._lanes.values():
            lane.rest()

    def _feed(self, lane: Lane) -> None:
        queue = self._queues[self._current]
        contended = any(name != self._current for name in self._arrivals)
        count = min(len(queue), self._quota - self._taken) if contended else len(queue)
        if count <= 0:
            return
        lane.add([queue.popleft() for _ in range(count)])
        self._taken += count
        if not queue:
            self._arrivals.remove(self._current)
