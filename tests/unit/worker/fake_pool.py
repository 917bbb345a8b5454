"""An engine pool without processes: tests say what each child answers, and when it dies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shared.db.models import Model
from worker.engines.child import ChildDied
from worker.engines.protocol import (
    Cancelled,
    Fatal,
    FromEngine,
    Load,
    Ready,
    Row,
    RowResult,
    RowsDone,
)
from worker.execution import ShardRun
from worker.spool import Spool, Taken

SIGKILL = -9


class FakeChild:
    """Notes what it is given; says what ``finish``, ``confirm_cancel`` and ``die`` queued up."""

    def __init__(
        self, model: str, pid: int, *, ready: bool, capacity: int, spool: str = ""
    ) -> None:
        self.load = Load(model=model, engine="fake", source="", spool=spool)
        self.pid = pid
        self.pipe = object()
        self.ready = Ready(capacity, 0) if ready else None
        self.state = "ready" if ready else "loading"
        self.last_heard = 0.0
        self.rows_in_flight: dict[tuple[int, int], set[int]] = {}
        self.submitted: list[tuple[int, int]] = []
        self.adapters: list[tuple[str, str]] = []
        """Folder and name that each of them came with."""
        self.cancelled: list[tuple[int, int]] = []
        self._inbox: list[FromEngine] = []
        self._death: ChildDied | None = None

    def submit(self, shard: int, epoch: int, rows: Sequence[Row]) -> None:
        if self._death is not None:
            raise self._death
        self.rows_in_flight.setdefault((shard, epoch), set()).update(row.index for row in rows)
        self.submitted += [(shard, row.index) for row in rows]
        self.adapters += [(row.adapter, row.adapter_name) for row in rows]

    def cancel(self, shard: int, epoch: int) -> None:
        if self._death is not None:
            raise self._death
        self.cancelled.append((shard, epoch))

    def receive(self) -> list[FromEngine]:
        messages, self._inbox = self._inbox, []
        if not messages and self._death is not None:
            raise self._death
        for message in messages:
            if isinstance(message, RowsDone):
                for result in message.results:
                    self._forget_row(result)
            elif isinstance(message, Cancelled):
                self.rows_in_flight.pop((message.shard, message.epoch), None)
        return messages

    def _forget_row(self, result: RowResult) -> None:
        key = (result.shard, result.epoch)
        indexes = self.rows_in_flight.get(key, set())
        indexes.discard(result.index)
        if not indexes:
            self.rows_in_flight.pop(key, None)

    def kill(self) -> None:
        self.die()

    # --- what tests make it do ------------------------------------------------------------

    def finish(self, run: ShardRun, *indexes: int, status: int = 200) -> None:
        body = b'{"ok":true}' if status < 400 else b'{"error":{"code":"bad","message":"no"}}'
        results = [RowResult(*held(run), index, status, body, 3, 5) for index in indexes]
        self._inbox.append(RowsDone(results))

    def say_ready(self, capacity: int = 8) -> None:
        self.ready, self.state = Ready(capacity, 0), "ready"
        self._inbox.append(self.ready)

    def confirm_cancel(self, run: ShardRun) -> None:
        self._inbox.append(Cancelled(*held(run)))

    def die(self, returncode: int = SIGKILL, fatal: Fatal | None = None) -> None:
        self._death = self._death or ChildDied(returncode, fatal)
        self.state = "dead"


class FakePool:
    """Stands in for ``EnginePool``; ``room`` off makes it refuse new children."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.room = True
        self.loads_at_once = True
        self.spawned: list[FakeChild] = []
        self.sources: list[str] = []
        """Of the models that were asked for."""
        self._children: dict[tuple[str, bool], FakeChild] = {}

    def get(self, model: Model, *, quarantine: bool = False) -> FakeChild | None:
        key = (model.id, quarantine)
        self.sources.append(model.source)
        if key not in self._children:
            if not self.room:
                return None
            folder = self._spool.engine_folder(model.id, quarantine=quarantine)
            self._spool.open_engine_folder(folder)
            child = FakeChild(
                model.id,
                len(self.spawned) + 1,
                ready=self.loads_at_once,
                capacity=8,
                spool=folder,
            )
            self._children[key] = child
            self.spawned.append(child)
        return self._children[key]

    def child(self, model: str = "m", *, quarantine: bool = False) -> FakeChild:
        return self._children[model, quarantine]

    def has(self, model: str = "m", *, quarantine: bool = False) -> bool:
        return (model, quarantine) in self._children

    def children(self) -> Iterator[tuple[tuple[str, bool], FakeChild]]:
        yield from list(self._children.items())

    def forget(self, key: tuple[str, bool]) -> None:
        self._children.pop(key, None)

    def capacity(self, _pool: str) -> int:
        return max(
            (child.ready.capacity for child in self._children.values() if child.ready), default=0
        )

    def retire_quarantine(self) -> None:
        pass

    def kill_all(self) -> None:
        for key, child in self.children():
            child.kill()
            self.forget(key)


class FakeCommits:
    """Notes the ends, in order, as (what, run, reason, code)."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, ShardRun, Any, str | None]] = []
        self.early: list[ShardRun] = []
        self.previews: list[tuple[ShardRun, Taken, int]] = []

    def generation(self, run: ShardRun) -> None:
        self.ends.append(("generation", run, None, None))

    def slice(self, run: ShardRun) -> None:
        self.ends.append(("slice", run, None, None))

    def step(self, run: ShardRun) -> None:
        self.ends.append(("step", run, None, None))

    def store_early(self, run: ShardRun) -> None:
        self.early.append(run)

    def preview(self, run: ShardRun, taken: Taken, step: int) -> None:
        self.previews.append((run, taken, step))

    def release(self, run: ShardRun, reason: Any, *, code: str | None = None, **_: Any) -> None:
        self.ends.append(("release", run, reason, code))


def held(run: ShardRun) -> tuple[int, int]:
    return run.held.shard_id, run.held.epoch
