"""Which models are loaded: children by model, the least recently used ones making room."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import structlog

from shared.db.models import Model
from worker.engines.child import EngineChild
from worker.engines.protocol import Load

log = structlog.get_logger()

MEMORY_SHARE = 0.7
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
QUARANTINE_IDLE_SECONDS = 30.0
LOAD_OVERHEAD = 1.5
"""Expected memory of a model that was not loaded yet, over the size of its weights."""

CATALOG_SETTINGS = frozenset({"tokens_per_second"})
"""What the catalog says of a model that its engine need not know."""

ChildKey = tuple[str, bool]
"""(model id, whether it is the quarantine engine)."""


class EnginePool:
    """The engine children of one worker. Not thread-safe; the supervisor's thread owns it."""

    def __init__(
        self,
        *,
        memory_bytes: int | None,
        environment: Mapping[str, str],
        threads: int | None,
    ) -> None:
        self._budget = memory_bytes or int(machine_memory() * MEMORY_SHARE)
        self._environment = dict(environment)
        if threads is not None:
            self._environment["OMP_NUM_THREADS"] = str(threads)
        self._children: dict[ChildKey, EngineChild] = {}
        self._used: dict[ChildKey, float] = {}
        self._expected: dict[ChildKey, int] = {}

    def get(self, model: Model, *, quarantine: bool = False) -> EngineChild | None:
        """The child that serves ``model``, spawned if need be; None while there is no room.

        A lone model is always loaded, whatever the budget: refusing it would help nobody. A child
        that was loaded by another catalog entry than today's is replaced once its rows are done;
        until then it gets no more.
        """
        key, load = (model.id, quarantine), self._load(model)
        child = self._children.get(key)
        if child is not None and child.load != load:
            if child.rows_in_flight:
                return None
            self._evict(key)
            child = None
        if child is None:
            child = self._spawn(key, load)
        if child is not None:
            self._used[key] = time.monotonic()
        return child

    def _spawn(self, key: ChildKey, load: Load) -> EngineChild | None:
        try:
            expected = expected_bytes(load.source)
            if not self._make_room(expected):
                return None
            child = EngineChild.spawn(load, environment=self._environment)
        except OSError as error:  # no process or no descriptor to be had: later, perhaps
            log.warning("engine_not_spawned", model=load.model, error=type(error).__name__)
            return None
        self._children[key], self._expected[key] = child, expected
        return child

    def children(self) -> Iterator[tuple[ChildKey, EngineChild]]:
        yield from list(self._children.items())

    def forget(self, key: ChildKey) -> None:
        """Drops a child that died."""
        self._children.pop(key, None)
        self._used.pop(key, None)
        self._expected.pop(key, None)

    def capacity(self) -> int:
        """The rows that the hungriest loaded engine wants to hold; 0 when none is ready."""
        return max((child.capacity for child in self._children.values()), default=0)

    def retire_quarantine(self) -> None:
        """Unloads quarantine engines that have had nothing to do for a while."""
        for key, child in self.children():
            idle = time.monotonic() - self._used[key] > QUARANTINE_IDLE_SECONDS
            if key[1] and idle and not child.rows_in_flight:
                self._evict(key)

    def kill_all(self) -> None:
        for key, child in self.children():
            child.kill()
            self.forget(key)

    def _load(self, model: Model) -> Load:
        settings = {k: v for k, v in model.settings.items() if k not in CATALOG_SETTINGS}
        return Load(model=model.id, engine=model.engine, source=model.source, settings=settings)

    def _make_room(self, wanted: int) -> bool:
        while self._children and self._resident() + wanted > self._budget:
            idle = [key for key, child in self.children() if not child.rows_in_flight]
            if not idle:
                return False
            self._evict(min(idle, key=self._used.__getitem__))
        return True

    def _resident(self) -> int:
        # One that is still loading says nothing yet, and must not be taken for small.
        return sum(
            child.resident_bytes or self._expected[key] for key, child in self._children.items()
        )

    def _evict(self, key: ChildKey) -> None:
        log.info("engine_evicted", model=key[0], quarantine=key[1])
        self._children[key].kill()
        self.forget(key)


def machine_memory() -> int:
    """Bytes this process may use: the machine's, or its container's when that is less."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = CONTAINER_LIMIT.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def expected_bytes(source: str) -> int:
    """What loading a model may take, judged by its weight files; 0 when that can't be known."""
    folder = Path(source) if source else None
    if folder is None or not folder.is_dir():
        return 0
    weights = sum(path.stat().st_size for path in folder.glob("**/*.safetensors"))
    return int(weights * LOAD_OVERHEAD)
