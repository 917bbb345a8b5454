"""Carrying ends to the store and the database, for as long as it takes.

A result that was computed is not given up for an outage: it is offered again until it is accepted,
or until the fence proves that this worker no longer holds the shard.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.backoff import delays
from shared.db.steps import pools_after
from shared.doorbell import Ringer
from shared.errors import StorageFull, StorageUnavailable
from shared.lifecycle import working
from shared.lifecycle.working import GenerationEnd, Held, ReleaseReason
from shared.pools import UPKEEP
from shared.states import ShardState
from shared.storage.base import Store
from worker.execution import ShardRun
from worker.generation_groups import GenerationGroups
from worker.insistence import Insistence, Stale
from worker.outputs import store_files
from worker.session import Session
from worker.spool import Taken, remove

log = structlog.get_logger()

STORAGE_PATIENCE_SECONDS = 600.0
"""For how long a slice is offered to a store that fails, before it is given back with ``error_n``
charged, so that one that can't be stored at all does not hold up the others for ever."""
STORAGE_PAUSE_CAP_SECONDS = 30.0
MOST_WAITING_SLICES = 16
"""Results that wait for the store are in memory: above this a worker makes no more of them."""

UNFORESEEN_PAUSE_SECONDS = 5.0

Result = TypeVar("Result")


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
        upload_threads: int = 4,
        storage_patience: float = STORAGE_PATIENCE_SECONDS,
    ) -> None:
        self._storage_patience = storage_patience
        self._database = database
        self._autocommit = autocommit
        self._store = store
        self._ringer = ringer
        self._on_closed = on_closed
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="commit")
        # Of their own: threads that commit wait for them.
        self._uploads = ThreadPoolExecutor(upload_threads, thread_name_prefix="upload")
        self._slices_waiting = 0
        self._counting = threading.Lock()
        self._insistence = Insistence(session)
        self._groups = GenerationGroups(autocommit, self._insistence, on_closed)

    def generation(self, run: ShardRun) -> None:
        """Commits a single generation, together with others that end about now."""
        if run.has_files:
            self._threads.submit(self._store_then_group, run)
        else:
            self._groups.put(run.session_id, _end_of(run))

    def step(self, run: ShardRun) -> None:
        """Stores and commits a step of a graph."""
        self._carry_counted(run, lambda: self._commit_step(run))

    def slice(self, run: ShardRun) -> None:
        """Stores and commits a slice of a batch."""
        self._carry_counted(run, lambda: self._commit_slice(run))

    def store_early(self, run: ShardRun) -> None:
        """Begins to store the files of rows that have ended, while others of the shard run."""
        run.store_early(self._store, self._uploads.submit)

    def preview(self, run: ShardRun, taken: Taken, step: int) -> None:
        """Shows a picture that is not finished, if it can be done at once."""
        self._uploads.submit(self._show_preview, run, taken, step)

    def _carry_counted(self, run: ShardRun, work: Callable[[], None]) -> None:
        def commit() -> None:
            try:
                work()
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
        self._groups.close(timeout)
        self._insistence.let_go()
        self._threads.shutdown(wait=True)
        self._uploads.shutdown(wait=False, cancel_futures=True)

    def _carry(
        self, run: ShardRun, work: Callable[[], None], closes: Callable[[], bool] = lambda: True
    ) -> None:
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
            if closes():
                self._on_closed(held)

    def _stored(self, run: ShardRun, store: Callable[[], Result]) -> Result | None:
        """What ``store`` returns, offered to a store that fails for as long as patience lasts;
        None when the shard was given back instead."""
        give_up = time.monotonic() + self._storage_patience
        for tries, delay in enumerate(delays(base=0.5, cap=STORAGE_PAUSE_CAP_SECONDS), start=1):
            try:
                return store()
            except (StorageUnavailable, StorageFull) as error:
                log.warning("store_failed", shard=run.held.shard_id, code=error.code, tries=tries)
                if time.monotonic() >= give_up:
                    self._release(run, ReleaseReason.ERROR, error.code, error.message, delay)
                    return None
                self._insistence.pause(delay, run.session_id)
        raise AssertionError("delays() never ends")

    def _commit_slice(self, run: ShardRun) -> None:
        end = self._stored(run, lambda: run.end_slice(self._store))
        if end is not None:
            self._commit_alone(run, lambda c: working.finish_slice(c, run.session_id, end))

    def _commit_step(self, run: ShardRun) -> None:
        end = self._stored(run, lambda: self._end_with_files(run))
        if end is not None:
            self._commit_alone(run, lambda c: working.finish_step(c, run.session_id, end))
            self._ring_next(run)

    def _ring_next(self, run: ShardRun) -> None:
        """Announces the steps that waited for this one; upkeep finds them too, within a second."""
        with suppress(SQLAlchemyError), self._autocommit.connect() as connection:
            for pool in pools_after(connection, run.held.shard_id):
                self._ringer.ring(pool)

    def _commit_alone(self, run: ShardRun, finish: Callable[[Connection], bool]) -> None:
        def commit() -> bool:
            with self._database.begin() as connection:
                return finish(connection)

        if self._insistence.insist(commit, run.session_id):
            self._ringer.ring(UPKEEP)
        else:
            log.warning("zombie_commit_refused", shard=run.held.shard_id, epoch=run.held.epoch)

    def _end_with_files(self, run: ShardRun) -> GenerationEnd:
        run.store_files(self._store)
        return _end_of(run)

    def _store_then_group(self, run: ShardRun) -> None:
        """The shard is off the books once its group is committed, or here if that never comes."""
        grouped = False

        def store() -> None:
            nonlocal grouped
            end = self._stored(run, lambda: self._end_with_files(run))
            if end is not None:
                self._groups.put(run.session_id, end)
                grouped = True

        self._carry(run, store, closes=lambda: not grouped)

    def _show_preview(self, run: ShardRun, taken: Taken, step: int) -> None:
        try:
            row = next(iter(run.rows.values()))
            (preview,) = store_files(self._store, run.claim, row, [taken])
            with self._database.begin() as connection:
                working.add_preview(connection, run.session_id, run.held, preview, step=step)
        except Exception as error:  # it is only a look, and the next one comes
            log.warning("preview_dropped", shard=run.held.shard_id, error=type(error).__name__)
        finally:
            remove([taken.path])

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
                return working.release(
                    connection,
                    run.session_id,
                    run.held,
                    reason,
                    code=code,
                    message=message,
                    delay_seconds=delay_seconds,
                )

        state = self._insistence.insist(give_back, run.session_id)
        log.info("shard_released", shard=run.held.shard_id, reason=str(reason), state=state)
        self._ringer.ring(run.claim.pool if state == ShardState.READY else UPKEEP)


def _end_of(run: ShardRun) -> GenerationEnd:
    try:
        return run.end_generation()
    except Exception:
        log.exception("result_unreadable", shard=run.held.shard_id)
        return run.failed_end("engine_error", "the engine's answer could not be read")
