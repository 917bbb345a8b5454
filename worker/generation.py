"""Running claimed shards in engine children: who is in, what they answer, when they stop."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress

import structlog

from shared.lifecycle import Claim, Held, ReleaseReason, Watched
from shared.states import StopReason
from worker.commits import Commits
from worker.crashes import CRASHED, HUNG, Crashes
from worker.engines.child import ChildDied, EngineChild
from worker.engines.pool import ChildKey, EnginePool
from worker.engines.protocol import (
    Beat,
    Cancelled,
    Fatal,
    FromEngine,
    Loading,
    Ready,
    RowsDone,
)
from worker.execution import ShardRun
from worker.placement import ModelLookup, Placement

log = structlog.get_logger()

CANCEL_GRACE_SECONDS = 10.0
DEFAULT_CAPACITY = 128
"""Rows to claim before any engine has said how many it wants."""


class Generation:
    """Every shard that this worker runs in engines. Owned by the supervisor's thread."""

    def __init__(
        self,
        engines: EnginePool,
        commits: Commits,
        models: ModelLookup,
        *,
        idle_engine_seconds: float,
        load_engine_seconds: float,
    ) -> None:
        self._engines = engines
        self._commits = commits
        self._placement = Placement(engines, models, on_failed=self.end_if_done)
        self._crashes = Crashes(self._placement, self)
        self._idle_seconds = idle_engine_seconds
        self._load_seconds = load_engine_seconds
        self._runs: dict[Held, ShardRun] = {}
        self._reading: dict[Held, tuple[Claim, str]] = {}
        self._cancelling: dict[Held, float] = {}
        self._hung: set[int] = set()

    # --- what the supervisor asks ---------------------------------------------------------

    def room(self) -> int:
        """How many more rows the engines can use."""
        held = sum(max(1, len(run.unfinished)) for run in self._runs.values())
        held += sum(claim.row_count for claim, _ in self._reading.values())
        return max(0, (self._engines.capacity() or DEFAULT_CAPACITY) - held)

    @property
    def idle(self) -> bool:
        return not self._runs and not self._reading

    def pipes(self) -> Iterator[object]:
        """What to wait on: one pipe per child."""
        for _, child in self._engines.children():
            yield child.pipe

    def progress(self) -> dict[Held, tuple[int, int]]:
        """(rows completed, rows failed) of every batch slice under way."""
        return {
            held: (run.completed, run.failed)
            for held, run in self._runs.items()
            if run.is_batch and not run.ending
        }

    # --- from claim to submission ---------------------------------------------------------

    def expect(self, claim: Claim, session_id: str) -> None:
        """The claim's rows are being read; they count against the room."""
        self._reading[claim.held] = (claim, session_id)

    def begin(self, run: ShardRun) -> None:
        """Starts a shard whose rows are known."""
        self._reading.pop(run.held, None)
        self._runs[run.held] = run
        if run.stop_reason is not None:
            self._end(run)
            return
        by_model: dict[str, list[int]] = defaultdict(list)
        for row in run.rows.values():
            by_model[row.model].append(row.index)
        for model, indexes in by_model.items():
            self._placement.place(run, model, indexes)

    def unreadable(self, run: ShardRun, code: str, message: str) -> None:
        """The shard's rows could not be read: give it back."""
        self._reading.pop(run.held, None)
        self._runs[run.held] = run
        self.give_back(run, ReleaseReason.ERROR, code=code, message=message, delay_seconds=2.0)

    # --- what engines say -----------------------------------------------------------------

    def receive(self) -> None:
        """Takes every message that has arrived, and notices children that are gone."""
        for key, child in self._engines.children():
            try:
                for message in child.receive():
                    self._heed(child, message)
            except ChildDied as death:
                self._engines.forget(key)
                self._bury(key, child, death)

    def _heed(self, child: EngineChild, message: FromEngine) -> None:
        match message:
            case RowsDone(results):
                ended: set[Held] = set()
                for result in results:
                    held = Held(result.shard, result.epoch)
                    run = self._runs.get(held)
                    if run is not None and not run.ending:
                        run.take(result)
                        ended.add(held)
                for held in ended:
                    self.end_if_done(self._runs[held])
                self._placement.test_suspects(child.load.model)
            case Cancelled(shard, epoch):
                self._end_if_drained(Held(shard, epoch))
            case Ready(capacity, resident_bytes, detail):
                log.info(
                    "engine_ready",
                    model=child.load.model,
                    capacity=capacity,
                    resident_bytes=resident_bytes,
                    detail=detail,
                )
            case Loading() | Beat() | Fatal():
                pass

    def end_if_done(self, run: ShardRun) -> None:
        """Hands the shard over for its commit once every row has ended."""
        if run.done and not run.ending:
            self._end(run)

    def _end(self, run: ShardRun) -> None:
        run.ending = True
        if run.unfinished:
            run.cut()
        if run.is_batch:
            self._commits.slice(run)
        else:
            self._commits.generation(run)

    def give_back(
        self,
        run: ShardRun,
        reason: ReleaseReason,
        *,
        code: str | None = None,
        message: str | None = None,
        delay_seconds: float = 0.0,
    ) -> None:
        """Hands the shard over for its release, unless it has ended."""
        if not run.ending:
            run.ending = True
            self._commits.release(
                run, reason, code=code, message=message, delay_seconds=delay_seconds
            )

    def closed(self, held: Held) -> None:
        """The shard is committed, given back or lost: off the books."""
        self._runs.pop(held, None)
        self._cancelling.pop(held, None)

    # --- stopping -------------------------------------------------------------------------

    def obey(self, watched: list[Watched]) -> None:
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
            if _key(run.held) in child.rows_in_flight:
                self._cancel(child, run.held)
        self._end_if_drained(run.held)

    def _end_if_drained(self, held: Held) -> None:
        """Ends a stopping shard once no engine works on it."""
        run = self._runs.get(held)
        if run is None or run.ending or run.stop_reason is None:
            return
        # A child that still loads has begun nothing: the cancel is behind the rows in its pipe.
        if not any(
            child.state == "ready" and _key(held) in child.rows_in_flight
            for _, child in self._engines.children()
        ):
            self._end(run)

    def _abandon(self, run: ShardRun) -> None:
        run.ending = True
        for _, child in self._engines.children():
            if _key(run.held) in child.rows_in_flight:
                self._cancel(child, run.held)
        self.closed(run.held)

    @staticmethod
    def _cancel(child: EngineChild, held: Held) -> None:
        with suppress(ChildDied):  # judged when its pipe is read
            child.cancel(held.shard_id, held.epoch)

    def preempt_all(self) -> None:
        """The worker leaves: unfinished shards go back, blaming nobody."""
        for run in list(self._runs.values()):
            if run.is_batch and run.stop_reason is not None:
                self._end_if_drained(run.held)
            self.give_back(run, ReleaseReason.PREEMPTED)
        for claim, session_id in self._reading.values():
            self.give_back(ShardRun(claim, session_id, []), ReleaseReason.PREEMPTED)
        self._engines.kill_all()

    def abandon_all(self) -> None:
        """The session is dead: nothing that runs here is wanted any more."""
        for run in list(self._runs.values()):
            if not run.ending:
                run.ending = True
                self.closed(run.held)
        self._reading.clear()
        self._placement.forget_waiting()
        for key, child in self._engines.children():
            if child.rows_in_flight:
                child.kill()
                self._engines.forget(key)

    # --- tending --------------------------------------------------------------------------

    def tend(self) -> None:
        """Kills children that hang, places rows that waited for room, retires quarantine."""
        now = time.monotonic()
        hung = [child for _, child in self._engines.children() if self._is_hung(child, now)]
        for child in hung:
            log.error("engine_hung", model=child.load.model, pid=child.pid)
            self._hung.add(child.pid)
            child.kill()
        if hung:
            self.receive()
        self._placement.retry()
        self._engines.retire_quarantine()

    def _is_hung(self, child: EngineChild, now: float) -> bool:
        silent = now - child.last_heard
        if child.state == "loading":
            return silent > self._load_seconds
        if any(
            deadline < now and _key(held) in child.rows_in_flight
            for held, deadline in self._cancelling.items()
        ):
            return True
        return bool(child.rows_in_flight) and silent > self._idle_seconds

    # --- crashes --------------------------------------------------------------------------

    def _bury(self, key: ChildKey, child: EngineChild, death: ChildDied) -> None:
        """Decides what a child's death means for the rows that were in it."""
        hung = child.pid in self._hung
        self._hung.discard(child.pid)
        log.error(
            "engine_lost",
            model=key[0],
            quarantine=key[1],
            reason="hung" if hung else str(death),
            shards=len(child.rows_in_flight),
            detail=death.fatal.message if death.fatal else None,
        )
        victims = [
            (self._runs[Held(*held)], sorted(indexes))
            for held, indexes in child.rows_in_flight.items()
            if Held(*held) in self._runs and not self._runs[Held(*held)].ending
        ]
        if child.ready is None:
            fatal = death.fatal or Fatal("model_load_failed", f"{key[0]}: {death}")
            self._crashes.load_failed(victims, fatal)
            return
        for run, indexes in victims:
            if run.stop_reason is not None:
                self._end_if_drained(run.held)
            elif key[1]:
                self._crashes.alone(run, indexes[0], HUNG if hung else CRASHED)
            else:
                self._crashes.in_company(run, key[0], indexes)
        self._placement.test_suspects(key[0])


def _key(held: Held) -> tuple[int, int]:
    return held.shard_id, held.epoch
