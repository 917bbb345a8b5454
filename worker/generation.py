"""Running claimed shards in engine children: who is in, what they answer, when they stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import structlog

from shared.lifecycle.working import Claim, Held, ReleaseReason, Watched
from shared.states import Stage
from worker.commits import Commits
from worker.crashes import CRASHED, HUNG, Crashes
from worker.engines import protocol
from worker.engines.child import ChildDied, EngineChild
from worker.engines.pool import ChildKey, EnginePool
from worker.engines.protocol import FromEngine, RowResult
from worker.execution import ShardRun
from worker.inputs import Gathered
from worker.placement import Placement
from worker.reports import Reports
from worker.room import Room
from worker.serving import LocalFiles, ModelLookup
from worker.spool import Spool, remove
from worker.stopping import Leftovers, Stopping
from worker.streaming import Streams
from worker.watchdog import Watchdog

log = structlog.get_logger()


class Generation:
    """Every shard that this worker runs in engines. Owned by the supervisor's thread."""

    def __init__(
        self,
        engines: EnginePool,
        commits: Commits,
        models: ModelLookup,
        files: LocalFiles,
        spool: Spool,
        *,
        idle_engine_seconds: float,
        load_engine_seconds: float,
    ) -> None:
        self._engines = engines
        self._commits = commits
        self.placement = Placement(engines, models, files, self)
        self._crashes = Crashes(self.placement, self)
        self._room = Room(engines, self.placement)
        self._spool = spool
        self.reports = Reports(spool, commits)
        self.streams = Streams()
        self.on_wants_inputs: Callable[[ShardRun], None] = lambda run: None
        """Told of a run whose next rows need inputs that there was no room for before."""
        self._runs: dict[Held, ShardRun] = {}
        self._reading: dict[Held, tuple[Claim, str]] = {}
        self._stopping = Stopping(
            engines,
            self._runs,
            on_drained=self._end,
            on_abandoned=lambda run: self.closed(run.held),
        )
        self._leftovers = Leftovers(self._stopping)
        self._watchdog = Watchdog(
            engines,
            self._stopping,
            idle_seconds=idle_engine_seconds,
            load_seconds=load_engine_seconds,
        )

    # --- what the supervisor asks ---------------------------------------------------------

    def room(self, pool: str) -> int:
        """How many more rows of ``pool`` its engines can use."""
        reading = (claim for claim, _ in self._reading.values())
        return self._room.of(pool, self._runs.values(), reading)

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
        self._place(run)

    def _place(self, run: ShardRun) -> None:
        self.placement.place(run, sorted(run.unfinished - run.waiting))
        self.end_if_done(run)

    def provide(self, run: ShardRun, found: Gathered) -> None:
        """The inputs of some more rows of a run are there."""
        if run.held not in self._runs or run.ending:
            remove(found.paths)
            return
        run.provide(found)
        self._place(run)

    def unreadable(self, run: ShardRun, code: str, message: str) -> None:
        """The shard's rows could not be read: give it back."""
        self._reading.pop(run.held, None)
        if run.ending:
            return
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
            case protocol.RowsDone(results):
                self._take(results, child.load.spool)
                self.placement.test_suspects(child.load.model)
            case protocol.Progressing(rows):
                for row in rows:
                    held = Held(row.shard, row.epoch)
                    self.reports.note(self._runs.get(held), row, child.load.spool)
            case protocol.Speaking(deltas):
                for delta in deltas:
                    self.streams.note(self._runs.get(Held(delta.shard, delta.epoch)), delta)
            case protocol.Cancelled(shard, epoch):
                self._stopping.end_if_drained(Held(shard, epoch))
            case protocol.Ready(capacity, resident_bytes, detail):
                log.info(
                    "engine_ready",
                    model=child.load.model,
                    capacity=capacity,
                    resident_bytes=resident_bytes,
                    detail=detail,
                )
            case protocol.Loading() | protocol.Beat() | protocol.Fatal():
                pass

    def _take(self, results: Sequence[RowResult], folder: str) -> None:
        ended: dict[Held, ShardRun] = {}
        for result in results:
            run = self._runs.get(Held(result.shard, result.epoch))
            if run is None or run.ending:
                self._spool.drop(folder, result.files)
                continue
            ended[run.held] = run
            if result.files:
                run.take_filed(result, self._spool, folder)
            else:
                run.take(result)
        for run in ended.values():
            if run.has_files and run.is_batch:
                self._commits.store_early(run)
            self.end_if_done(run)

    def end_if_done(self, run: ShardRun) -> None:
        """Hands the shard over for its commit once every row has ended."""
        if run.ending:
            return
        if run.done:
            self._end(run)
        elif run.wants_inputs:
            run.fetching = True
            run.drop_inputs()
            self.on_wants_inputs(run)

    def _end(self, run: ShardRun) -> None:
        run.ending = True
        if run.unfinished:
            run.cut()
        run.drop_inputs()
        if run.is_batch:
            self._commits.slice(run)
        elif run.claim.stage == Stage.STEP:
            self._commits.step(run)
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
        run = self._runs.pop(held, None)
        self._stopping.closed(held)
        self.reports.forget(held)
        self.streams.forget(held)
        if run is not None:
            self._leftovers.add(run)
            self._leftovers.discard()

    # --- stopping -------------------------------------------------------------------------

    def obey(self, watched: list[Watched]) -> None:
        """Drops shards that were taken away and stops those whose job was asked to stop."""
        self._stopping.obey(watched)

    def preempt_all(self) -> None:
        """The worker leaves: unfinished shards go back, blaming nobody."""
        for run in list(self._runs.values()):
            if run.is_batch and run.stop_reason is not None:
                self._stopping.end_if_drained(run.held)
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
        self.placement.forget_waiting()
        for key, child in self._engines.children():
            if child.rows_in_flight:
                child.kill()
                self._engines.forget(key)

    # --- tending --------------------------------------------------------------------------

    def tend(self) -> None:
        """Kills children that hang, places rows that waited for room, retires quarantine."""
        if self._watchdog.bite():
            self.receive()
        self._leftovers.discard()
        self.placement.retry()
        self._engines.retire_quarantine()

    # --- crashes --------------------------------------------------------------------------

    def _bury(self, key: ChildKey, child: EngineChild, death: ChildDied) -> None:
        """Decides what a child's death means for the rows that were in it."""
        hung = self._watchdog.has_bitten(child)
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
        if self._crashes.excused(victims, child, death):
            return
        for run, indexes in victims:
            if run.stop_reason is not None:
                self._stopping.end_if_drained(run.held)
            elif key[1]:
                self._crashes.alone(run, indexes[0], HUNG if hung else CRASHED)
            else:
                self._crashes.in_company(run, indexes)
        self.placement.test_suspects(key[0])
