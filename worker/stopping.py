"""Shards that are asked to stop, or were taken away, while engines have their rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from shared.lifecycle.working import Held, Watched
from shared.states import StopReason
from worker.engines.child import ChildDied, EngineChild
from worker.engines.pool import EnginePool
from worker.execution import ShardRun

log = structlog.get_logger()

CANCEL_GRACE_SECONDS = 10.0


class Stopping:
    """Asks engines to drop rows, and ends a shard once none of them works on it any more."""

    def __init__(
        self,
        engines: EnginePool,
        runs: Mapping[Held, ShardRun],
        *,
        on_drained: Callable[[ShardRun], None],
        on_abandoned: Callable[[ShardRun], None],
    ) -> None:
        """``on_drained`` hears of a stopping run that no engine works on, ``on_abandoned`` of one
        that is somebody else's by now."""
        self._engines = engines
        self._runs = runs
        self._on_drained = on_drained
        self._on_abandoned = on_abandoned
        self._cancelling: dict[Held, float] = {}

    def obey(self, watched: Sequence[Watched]) -> None:
        """Drops shards that were taken away and stops those whose job was asked to stop."""
        still_held = {item.held: item.stop_reason for item in watched}
        for held, run in list(self._runs.items()):
            if run.ending:
                continue
            if held not in still_held:
                log.warning("shard_taken_away", shard=held.shard_id, epoch=held.epoch)
                self._abandon(run)
            elif still_held[held] is not None and run.stop_reason is None:
                self._stop(run, still_held[held])

    def _stop(self, run: ShardRun, reason: StopReason | None) -> None:
        run.stop_reason = reason
        self._cancelling[run.held] = time.monotonic() + CANCEL_GRACE_SECONDS
        for _, child in self._engines.children():
            if key_of(run.held) in child.rows_in_flight:
                self._cancel(child, run.held)
        self.end_if_drained(run.held)

    def end_if_drained(self, held: Held) -> None:
        """Ends a stopping shard once no engine works on it."""
        run = self._runs.get(held)
        if run is None or run.ending or run.stop_reason is None:
            return
        # A child that still loads has begun nothing: the cancel is behind the rows in its pipe.
        if not any(
            child.state == "ready" and key_of(held) in child.rows_in_flight
            for _, child in self._engines.children()
        ):
            self._on_drained(run)

    def _abandon(self, run: ShardRun) -> None:
        run.ending = True
        for _, child in self._engines.children():
            if key_of(run.held) in child.rows_in_flight:
                self._cancel(child, run.held)
        self._on_abandoned(run)

    @staticmethod
    def _cancel(child: EngineChild, held: Held) -> None:
        with suppress(ChildDied):  # judged when its pipe is read
            child.cancel(held.shard_id, held.epoch)

    def is_in_engine(self, held: Held) -> bool:
        """Whether a child has rows of the shard, wanted or not."""
        return any(key_of(held) in child.rows_in_flight for _, child in self._engines.children())

    def is_overdue(self, child: EngineChild, now: float) -> bool:
        """Whether the child was asked to drop rows and has not for long."""
        return any(
            deadline < now and key_of(held) in child.rows_in_flight
            for held, deadline in self._cancelling.items()
        )

    def closed(self, held: Held) -> None:
        """The shard is off the books."""
        self._cancelling.pop(held, None)


class Leftovers:
    """Runs that are off the books, and whose files an engine may still read."""

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping
        self._runs: list[ShardRun] = []

    def add(self, run: ShardRun) -> None:
        self._runs.append(run)

    def discard(self) -> None:
        """Removes the files of those that no engine reads any more."""
        still_read = []
        for run in self._runs:
            if self._stopping.is_in_engine(run.held):
                still_read.append(run)
            else:
                run.discard()
        self._runs = still_read


def key_of(held: Held) -> tuple[int, int]:
    """The shard as engine children know it."""
    return held.shard_id, held.epoch
