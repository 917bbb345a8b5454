"""Which models are loaded: children by model, the least recently used ones making room."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

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

PRECISION = re.compile(r"\.(fp16|bf16|fp32)(?=\.|-)")

CATALOG_SETTINGS = frozenset({"tokens_per_second", "images_per_second", "real_time_factor"})
"""What the catalog says of a model that its engine need not know."""

WAITING = frozenset({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"})
SPINS = "2000"
"""How often an idle thread of OpenMP's looks for work before it sleeps. Its default is so long that
engines which share cores mostly wait for one another's waiting; not to look at all makes an engine
slow that has the cores to itself."""

ChildKey = tuple[str, bool]
"""(model id, whether it is the quarantine engine)."""


class Folders(Protocol):
    """Where children leave files."""

    def engine_folder(self, model_id: str, *, quarantine: bool) -> str: ...

    def open_engine_folder(self, folder: str) -> None: ...

    def empty(self, folder: str) -> None: ...


class EnginePool:
    """The engine children of one worker. Not thread-safe; the supervisor's thread owns it."""

    def __init__(
        self,
        *,
        memory_bytes: int | None,
        environment: Mapping[str, str],
        threads: int | None,
        folders: Folders,
        public_url: str = "",
    ) -> None:
        self._budget = memory_bytes or int(machine_memory() * MEMORY_SHARE)
        self._environment = dict(environment)
        if threads is not None:
            self._environment["OMP_NUM_THREADS"] = str(threads)
        if not WAITING & self._environment.keys():
            self._environment["GOMP_SPINCOUNT"] = SPINS
        self._children: dict[ChildKey, EngineChild] = {}
        self._used: dict[ChildKey, float] = {}
        self._expected: dict[ChildKey, int] = {}
        self._pools: dict[ChildKey, str] = {}
        self._folders = folders
        self._public_url = public_url

    def get(self, model: Model, *, quarantine: bool = False) -> EngineChild | None:
        """The child that serves ``model``, spawned if need be; None while there is no room.

        A lone model is always loaded, whatever the budget: refusing it would help nobody. A child
        that was loaded by another catalog entry than today's is replaced once its rows are done;
        until then it gets no more.
        """
        key = (model.id, quarantine)
        load = self._load(model, quarantine)
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
            self._pools[key] = model.pool
        return child

    def _spawn(self, key: ChildKey, load: Load) -> EngineChild | None:
        try:
            expected = expected_bytes(load.source)
            if not self._make_room(expected):
                return None
            self._folders.open_engine_folder(load.spool)
            child = EngineChild.spawn(load, environment=self._environment)
        except OSError as error:  # no process or no descriptor to be had: later, perhaps
            log.warning("engine_not_spawned", model=load.model, error=type(error).__name__)
            return None
        self._children[key], self._expected[key] = child, expected
        return child

    def children(self) -> Iterator[tuple[ChildKey, EngineChild]]:
        yield from list(self._children.items())

    def forget(self, key: ChildKey) -> None:
        """Drops a child that died, and the files it left behind."""
        child = self._children.pop(key, None)
        self._used.pop(key, None)
        self._expected.pop(key, None)
        self._pools.pop(key, None)
        if child is not None:
            self._folders.empty(child.load.spool)

    def capacity(self, pool: str) -> int:
        """The rows that the pool's hungriest loaded engine wants to hold; 0 when none is ready."""
        return max(
            (child.capacity for key, child in self._children.items() if self._pools[key] == pool),
            default=0,
        )

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

    def _load(self, model: Model, quarantine: bool) -> Load:
        return Load(
            model=model.id,
            engine=model.engine,
            source=model.source,
            settings={k: v for k, v in model.settings.items() if k not in CATALOG_SETTINGS},
            spool=self._folders.engine_folder(model.id, quarantine=quarantine),
            public_url=self._public_url,
        )

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
    """What loading a model may take, judged by its weight files; 0 when that can't be known.

    A diffusers directory has a folder for each component, and may have each in several precisions
    (``model.safetensors``, ``model.fp16.safetensors``), of which one is loaded.
    """
    folder = Path(source) if source else None
    if folder is None or not folder.is_dir():
        return 0
    weights: dict[Path, int] = {}
    for path in folder.glob("**/*.safetensors"):
        component = path.with_name(PRECISION.sub("", path.name))
        weights[component] = max(weights.get(component, 0), path.stat().st_size)
    return int(sum(weights.values()) * LOAD_OVERHEAD)
