"""Carrying ends to the store and the database, for as long as it takes.

A result that was computed is not given up for an outage: it is offered again until it is accepted,
or until the fence proves that this worker no longer holds the shard.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared import lifecycle
from shared.backoff import delays
from shared.db.session import is_outage
from shared.doorbell import Ringer
from shared.errors import StorageFull, StorageUnavailable
from shared.lifecycle import GenerationEnd, Held, ReleaseReason
from shared.pools import UPKEEP
from shared.states import ShardState
from shared.storage.base import Store
from worker.execution import ShardRun
from worker.session import Session

log = structlog.get_logger()

GROUP_LIMIT = 256
"""Single generations committed in one statement."""
GROUP_BYTES = 16 * 2**20
"""A group that is larger than this goes as it is: Postgres takes no statement of a gigabyte."""
STORAGE_PATIENCE_SECONDS = 600.0
"""For how long a slice is offered to a store that fails, before it is given back with ``error_n``
charged, so that one that can't be stored at all does not hold up the others for ever."""
STORAGE_PAUSE_CAP_SECONDS = 30.0
MOST_WAITING_SLICES = 16
"""Results that wait for the store are in memory: above this a worker makes no more of them."""

UNFORESEEN_PAUSE_SECONDS = 5.0

Result = TypeVar("Result")


class Stale(Exception):
    """The session under which this was computed is dead: nobody wants it any more."""


class Commits:
    """Commits ends on threads of its own and tells ``on_closed`` which shards are off the books."""

    def __init__(
        self,
        database: Engine,
        autocommit: Engine,
        store: Store,
        session: Session,
        ringer: Ringer,
        *,
        on_closed: Callable[[Held], None],
        threads: int = 4,
        storage_patience: float = STORAGE_PATIENCE_SECONDS,
    ) -> None:
        self._storage_patience = storage_patience
        self._database = database
        self._autocommit = autocommit
        self._store = store
        self._session = session
        self._ringer = ringer
        self._on_closed = on_closed
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="commit")
        self._generations: SimpleQueue[tuple[str, GenerationEnd] | None] = SimpleQueue()
        self._slices_waiting = 0
        self._counting = threading.Lock()
        self._closing = threading.Event()
        self._grouper = threading.Thread(target=self._group, name="commit-group", daemon=True)
        self._grouper.start()

    def generation(self, run: ShardRun) -> None:
        """Commits a single generation, together with others that end about now."""
        try:
            end = run.end_generation()
        except Exception:
            log.exception("result_unreadable", shard=run.held.shard_id)
            end = run.failed_end("engine_error", "the engine's answer could not be read")
        self._generations.put((run.session_id, end))

    def slice(self, run: ShardRun) -> None:
        """Stores and commits a slice of a batch."""

        def commit() -> None:
            try:
                self._commit_slice(run)
            finally:
                with self._counting:
                    self._slices_waiting -= 1

        with self._counting:
            self._slices_waiting += 1
        self._threads.submit(self._carry, run, commit)

    def congested(self) -> bool:
        """Whether more slices wait to be stored than memory should hold."""
        return self._slices_waiting > MOST_WAITING_SLICES

    def release(
        self,
        run: ShardRun,
        reason: ReleaseReason,
        *,
        code: str | None = None,
        message: str | None = None,
        delay_seconds: float = 0.0,
    ) -> None:
        """Gives a shard back."""

        def give_back() -> None:
            self._release(run, reason, code, message, delay_seconds)

        self._threads.submit(self._carry, run, give_back)

    def close(self, timeout: float) -> None:
        """Waits for what is under way, up to ``timeout`` seconds, then lets go of it."""
        self._generations.put(None)
        self._grouper.join(timeout)
        self._closing.set()
        self._threads.shutdown(wait=True)

    def _carry(self, run: ShardRun, work: Callable[[], None]) -> None:
        held = run.held
        try:
            try:
                work()
            except Stale:
                raise
            except Exception:
                # Held under a live lease, it would otherwise wait for this worker's end.
                log.exception("commit_failed", shard=held.shard_id, epoch=held.epoch)
                why = ("internal_error", "the result could not be stored")
                self._release(run, ReleaseReason.ERROR, *why, UNFORESEEN_PAUSE_SECONDS)
        except Stale:
            log.warning("stale_shard_dropped", shard=held.shard_id, epoch=held.epoch)
        except Exception:
            log.exception("shard_not_released", shard=held.shard_id, epoch=held.epoch)
        finally:
            self._on_closed(held)

    def _commit_slice(self, run: ShardRun) -> None:
        give_up = time.monotonic() + self._storage_patience
        for tries, delay in enumerate(delays(base=0.5, cap=STORAGE_PAUSE_CAP_SECONDS), start=1):
            try:
                end = run.end_slice(self._store)
                break
            except (StorageUnavailable, StorageFull) as error:
                log.warning("store_failed", shard=run.held.shard_id, code=error.code, tries=tries)
                if time.monotonic() >= give_up:
                    self._release(run, ReleaseReason.ERROR, error.code, error.message, delay)
                    return
                self._pause(delay, run.session_id)

        def commit() -> bool:
            with self._database.begin() as connection:
                return lifecycle.finish_slice(connection, run.session_id, end)

        if self._insist(commit, run.session_id):
            self._ringer.ring(UPKEEP)
        else:
            log.warning("zombie_commit_refused", shard=run.held.shard_id, epoch=run.held.epoch)

    def _release(
        self,
        run: ShardRun,
        reason: ReleaseReason,
        code: str | None,
        message: str | None,
        delay_seconds: float,
    ) -> None:
        def give_back() -> ShardState | None:
            with self._database.begin() as connection:
                return lifecycle.release(
                    connection,
                    run.session_id,
                    run.held,
                    reason,
                    code=code,
                    message=message,
                    delay_seconds=delay_seconds,
                )

        state = self._insist(give_back, run.session_id)
        log.info("shard_released", shard=run.held.shard_id, reason=str(reason), state=state)
        self._ringer.ring(run.claim.pool if state == ShardState.READY else UPKEEP)

    def _group(self) -> None:
        while (first := self._generations.get()) is not None:
            group, closing, size = [first], False, _bytes_of(first[1])
            while len(group) < GROUP_LIMIT and size < GROUP_BYTES and not closing:
                try:
                    item = self._generations.get_nowait()
                except Empty:
                    break
                if item is None:
                    closing = True
                else:
                    group.append(item)
                    size += _bytes_of(item[1])
            for session_id, items in groupby(group, key=lambda item: item[0]):
                self._commit_generations(session_id, [end for _, end in items])
            if closing:
                return

    def _commit_generations(self, session_id: str, ends: Sequence[GenerationEnd]) -> None:
        def commit() -> set[Held]:
            with self._autocommit.connect() as connection:
                return lifecycle.finish_generations(connection, session_id, ends)

        held = [end.held for end in ends]
        try:
            zombies = set(held) - self._insist(commit, session_id)
            if zombies:
                log.warning("zombie_commits_refused", shards=[item.shard_id for item in zombies])
        except Stale:
            log.warning("stale_shards_dropped", shards=[item.shard_id for item in held])
        except Exception as error:
            # Not an outage: one of the results is at fault, or this code is.
            self._commit_one_by_one(session_id, ends, error)
            return
        for item in held:
            self._on_closed(item)

    def _commit_one_by_one(
        self, session_id: str, ends: Sequence[GenerationEnd], error: Exception
    ) -> None:
        """A statement that the database refuses for one result must not hold up the others."""
        if len(ends) > 1:
            for end in ends:
                self._commit_generations(session_id, [end])
            return
        log.error("result_refused", shard=ends[0].held.shard_id, error=type(error).__name__)
        if ends[0].error_code == "result_refused":
            self._on_closed(ends[0].held)
            return
        failed = GenerationEnd(
            ends[0].held,
            ShardState.FAILED,
            ends[0].sha256,
            error_code="result_refused",
            error_message="the database could not store the result",
        )
        self._commit_generations(session_id, [failed])

    def _insist(self, call: Callable[[], Result], session_id: str) -> Result:
        """Calls until the database answers. Raises Stale when the session is proven dead."""
        for delay in delays(base=0.1, cap=5.0):
            try:
                return call()
            except SQLAlchemyError as error:
                if not is_outage(error):
                    raise
                log.warning("commit_postponed", error=type(error).__name__)
            self._pause(delay, session_id)
        raise AssertionError("delays() never ends")

    def _pause(self, seconds: float, session_id: str) -> None:
        if self._closing.wait(seconds) or self._session.is_lost(session_id):
            raise Stale


def _bytes_of(end: GenerationEnd) -> int:
    """About what committing it sends; results are nearly all ASCII."""
    return len(end.result or "")
