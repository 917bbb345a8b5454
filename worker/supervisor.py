"""The supervisor: one thread that hears, claims, feeds engines, and hands ends over for commit.

It imports no torch. A turn of its loop takes milliseconds: whatever may block (reading slices,
storing results, commits that meet an outage, the heartbeat) runs on other threads and comes back
by the mailbox.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from multiprocessing.connection import wait
from typing import Protocol

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.lifecycle import working
from shared.lifecycle.working import Claim, Held
from worker.admission import Admission
from worker.books import Books
from worker.generation import Generation
from worker.session import Session
from worker.telling import Telling
from worker.wakeup import Mailbox

log = structlog.get_logger()

WATCH_SECONDS = 1.0
CLAIM_SHARDS = 64
CLAIM_PAUSE_SECONDS = 0.02
"""Between claims while work keeps coming, so that room gathers for more than a row at a time."""
POLL_JITTER = 0.25


class Chores(Protocol):
    """The desk of a pool without engines: its shards run on threads of this process."""

    def room(self) -> int: ...

    def apart(self) -> Collection[str]:
        """Tenants that have as many here as they may while others could need the rest."""

    @property
    def idle(self) -> bool: ...

    def begin(self, claim: Claim, session_id: str) -> None: ...

    def obey(self, watched: Sequence[working.Watched]) -> None: ...

    def drain(self) -> None:
        """The worker will leave: what can't be done soon is brought to where it can go on."""

    def abandon_all(self) -> None: ...


class Supervisor:
    """Claims shards of ``pools`` and sees them to their end, until it is told to drain."""

    def __init__(
        self,
        *,
        database: Engine,
        autocommit: Engine,
        session: Session,
        mailbox: Mailbox,
        generation: Generation,
        admission: Admission,
        desks: Mapping[str, Chores],
        pools: Sequence[str],
        window: int,
        poll_seconds: float,
        drain_seconds: float,
        congested: Callable[[], bool],
    ) -> None:
        """``desks`` are those of pools without engines; ``congested`` says that so many results
        wait to be stored that no more should be made."""
        self._congested = congested
        self._database = database
        self._autocommit = autocommit
        self._session = session
        self._mailbox = mailbox
        self._generation = generation
        self._desks = dict(desks)
        self._engine_pools = [pool for pool in pools if pool not in self._desks]
        self._window = window
        self._poll_seconds = poll_seconds
        self._drain_seconds = drain_seconds
        self._admission = admission
        self._books = Books()
        self._telling = Telling(autocommit, session, generation)
        self._rung = True
        self._session_lost = False
        self._drain_by: float | None = None
        self._next_poll = 0.0
        self._next_watch = 0.0
        self._not_before = 0.0

    # --- signals from other threads -------------------------------------------------------

    def ring(self, pool: str) -> None:
        """A doorbell: ``pool`` may have work."""
        self._rung = True
        self._mailbox.wake()

    def drain(self) -> None:
        """Claim no more; finish within ``drain_seconds`` or give back, the second time at once.

        Safe in signal handlers.
        """
        patience = self._drain_seconds if self._drain_by is None else 0.0
        self._drain_by = time.monotonic() + patience
        self._mailbox.wake()

    def session_lost(self) -> None:
        self._session_lost = True
        self._mailbox.wake()

    # --- the loop -------------------------------------------------------------------------

    def run(self) -> None:
        """Returns when drained."""
        if not self._session.open(give_up=self._told_to_drain):
            return
        draining = False
        while not self._finished():
            wait([self._mailbox, *self._generation.pipes()], self._patience())  # type: ignore[list-item]
            self._mailbox.run_errands()
            self._generation.receive()
            self._telling.tell_text_if_due()
            if self._session_lost:
                self._start_over()
            if self._drain_by is None:
                self._claim_if_due()
            elif not draining:
                draining = True
                log.info("draining")
                self._session.drain()
                for desk in self._desks.values():
                    desk.drain()
            self._watch_if_due()
        self._generation.preempt_all()
        self._admission.close()

    def _finished(self) -> bool:
        if self._drain_by is None:
            return False
        return not self._busy() or time.monotonic() >= self._drain_by

    def _busy(self) -> bool:
        return not self._generation.idle or any(not desk.idle for desk in self._desks.values())

    def _patience(self) -> float:
        now = time.monotonic()
        deadlines = [self._next_watch]
        if (due := self._generation.reports.due_at()) is not None:
            deadlines.append(due)
        if (due := self._generation.streams.due_at()) is not None:
            deadlines.append(due)
        if self._drain_by is None:
            deadlines.append(max(self._not_before, now) if self._rung else self._next_poll)
        else:
            deadlines.append(self._drain_by)
        return max(0.0, min(deadlines) - now)

    def _start_over(self) -> None:
        """The lease was declared dead: drop everything and begin with a new one."""
        self._session_lost = False
        self._generation.abandon_all()
        for desk in self._desks.values():
            desk.abandon_all()
        self._session.open(give_up=self._told_to_drain)

    def _told_to_drain(self) -> bool:
        return self._drain_by is not None

    # --- claiming -------------------------------------------------------------------------

    def _claim_if_due(self) -> None:
        now = time.monotonic()
        if not (self._rung or now >= self._next_poll) or now < self._not_before:
            return
        self._rung = False
        self._next_poll = now + self._poll_seconds * random.uniform(  # noqa: S311 - jitter
            1 - POLL_JITTER, 1 + POLL_JITTER
        )
        try:
            claimed = self._claim_chores() + self._claim_rows()
        except SQLAlchemyError as error:
            log.warning("claim_failed", error=type(error).__name__)
            return
        if claimed:
            self._rung = True  # there may be more
            self._not_before = time.monotonic() + CLAIM_PAUSE_SECONDS

    def _claim_rows(self) -> int:
        if not self._engine_pools or self._congested():
            return 0
        claimed = self._claim_ready_rows()
        # What is ready goes first: a job on an idle system need not wait for a dispatch.
        hungry = [pool for pool in self._engine_pools if self._generation.room(pool)]
        if hungry and self._dispatch(hungry):
            claimed += self._claim_ready_rows()
        return claimed

    def _claim_ready_rows(self) -> int:
        return sum(self._claim_of_pool(pool) for pool in self._engine_pools)

    def _claim_of_pool(self, pool: str) -> int:
        if (rows := self._generation.room(pool)) == 0:
            return 0
        claims = self._claim(pool, CLAIM_SHARDS, rows, self._generation.placement.loaded())
        for claim in claims:
            self._admission.begin(claim, self._session.id)
        return len(claims)

    def _claim_chores(self) -> int:
        claimed = 0
        for pool, desk in self._desks.items():
            if (room := desk.room()) == 0:
                continue
            self._dispatch([pool])
            for _ in range(room):  # one at a time: each may set its tenant apart
                claims = self._claim(pool, 1, 1, apart=desk.apart())
                if not claims:
                    break
                desk.begin(claims[0], self._session.id)
                claimed += 1
        return claimed

    def _dispatch(self, pools: Sequence[str]) -> int:
        with self._database.begin() as connection:
            return sum(
                working.dispatch(connection, pool=pool, window=self._window) for pool in pools
            )

    def _claim(
        self,
        pool: str,
        max_shards: int,
        max_rows: int,
        loaded: Collection[str] = (),
        apart: Collection[str] = (),
    ) -> list[Claim]:
        with self._autocommit.connect() as connection:
            return self._books.note(
                lambda: working.claim(
                    connection,
                    session_id=self._session.id,
                    pools=[pool],
                    max_shards=max_shards,
                    max_rows=max_rows,
                    loaded=loaded,
                    apart=apart,
                )
            )

    # --- watching -------------------------------------------------------------------------

    def _watch_if_due(self) -> None:
        now = time.monotonic()
        due = self._generation.reports.due_at()
        if now < self._next_watch:
            if due is not None and now >= due:
                self._telling.write_steps()
            return
        self._next_watch = now + WATCH_SECONDS
        self._generation.tend()
        if not (self._busy() or self._books.in_doubt):
            return
        try:
            with self._autocommit.connect() as connection:
                if progress := self._generation.progress():
                    working.report_progress(connection, self._session.id, progress)
                if steps := self._generation.reports.take():
                    working.report_steps(connection, self._session.id, steps)
                watched = working.watch(connection, self._session.id)
        except SQLAlchemyError as error:
            log.warning("watch_failed", error=type(error).__name__)
            return
        self._generation.obey(watched)
        for desk in self._desks.values():
            desk.obey(watched)
        self._books.give_back_strays(self._database, self._session.id, watched)

    def closed(self, held: Held) -> None:
        """A shard is off the books; callable from any thread."""
        self._mailbox.put(lambda: self._after_close(held))

    def _after_close(self, held: Held) -> None:
        self._generation.closed(held)
        self._books.closed(held)
        self._rung = True
