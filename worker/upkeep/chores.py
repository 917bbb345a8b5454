"""Shards of the upkeep pool: validating and assembling batches, on threads of this process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from shared import lifecycle
from shared.backoff import delay_seconds, delays
from shared.db.models import Model, list_models
from shared.db.session import autocommit, is_outage
from shared.db.shards import slices_of
from shared.doorbell import Ringer
from shared.errors import PressrunError, StorageFull, StorageUnavailable
from shared.ids import new_file_id
from shared.lifecycle import Claim, Held, NewFile, ReleaseReason, Watched
from shared.pools import UPKEEP
from shared.states import ShardState, Stage
from shared.storage.base import Store, StoredObject
from worker.session import Session
from worker.upkeep.assembly import Assembler, Interrupted
from worker.upkeep.validation import BatchValidator

log = structlog.get_logger()

THREADS = 2
RETRY_SECONDS = 2.0
OUTAGE_RETRY_CAP_SECONDS = 60.0
DEFAULT_KEEP_SECONDS = 30 * 86_400
"""Result files live for 30 days unless ``output_expires_after`` says otherwise."""


@dataclass
class Chore:
    """One upkeep shard under way; ``interrupted`` is set from the supervisor's thread."""

    claim: Claim
    session_id: str
    interrupted: threading.Event = field(default_factory=threading.Event)


class UpkeepChores:
    """Runs validate and assemble shards; ``begin``, ``obey`` and ``abandon_all`` are called by the
    supervisor's thread, the work happens on others."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        session: Session,
        ringer: Ringer,
        *,
        on_closed: Callable[[Held], None],
        max_rows: int,
        max_line_bytes: int,
        max_reported: int,
    ) -> None:
        self._database = database
        self._store = store
        self._session = session
        self._ringer = ringer
        self._on_closed = on_closed
        self._max_rows = max_rows
        self._max_line_bytes = max_line_bytes
        self._max_reported = max_reported
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="chore")
        self._chores: dict[Held, Chore] = {}
        self._closing = threading.Event()

    def room(self) -> int:
        return max(0, THREADS - len(self._chores))

    @property
    def idle(self) -> bool:
        return not self._chores

    def begin(self, claim: Claim, session_id: str) -> None:
        chore = self._chores[claim.held] = Chore(claim, session_id)
        self._threads.submit(self._run, chore)

    def obey(self, watched: Sequence[Watched]) -> None:
        """Interrupts chores that were taken away or whose batch was asked to stop."""
        held = {item.held: item.stop_reason for item in watched}
        for key, chore in list(self._chores.items()):
            if key not in held or held[key] is not None:
                chore.interrupted.set()

    def abandon_all(self) -> None:
        for chore in list(self._chores.values()):
            chore.interrupted.set()

    def close(self) -> None:
        """Interrupts what is under way; each chore gives its shard back before this returns. With
        the database away it does not wait: the shards are recovered when the lease ends."""
        self._closing.set()
        self.abandon_all()
        self._threads.shutdown(wait=True)

    def _run(self, chore: Chore) -> None:
        claim = chore.claim
        started = time.monotonic()
        try:
            if claim.stage == Stage.VALIDATE:
                self._validate(chore)
            elif claim.stage == Stage.ASSEMBLE:
                self._assemble(chore)
            else:
                raise AssertionError(f"upkeep has no stage {claim.stage}")
        except Interrupted:
            self._give_back(chore, ReleaseReason.PREEMPTED)
        except Exception as error:
            self._judge(chore, error)
        finally:
            self._chores.pop(claim.held, None)
            self._on_closed(claim.held)
            log.info(
                "chore_done",
                job=claim.job_id,
                stage=claim.stage,
                seconds=round(time.monotonic() - started, 3),
            )

    def _judge(self, chore: Chore, error: Exception) -> None:
        """An outage is nobody's fault, and a batch whose rows are done must outlive it; other
        faults are charged."""
        claim = chore.claim
        if isinstance(error, (StorageUnavailable, StorageFull)) or is_outage(error):
            log.warning(
                "chore_postponed", job=claim.job_id, stage=claim.stage, error=type(error).__name__
            )
            pause = delay_seconds(claim.epoch, base=RETRY_SECONDS, cap=OUTAGE_RETRY_CAP_SECONDS)
            self._give_back(chore, ReleaseReason.PREEMPTED, delay=pause)
            return
        code, message = "internal_error", f"{claim.stage} failed"
        if isinstance(error, PressrunError):
            code, message = error.code, error.message
        else:
            log.error("chore_failed", job=claim.job_id, stage=claim.stage, exc_info=error)
        self._give_back(chore, ReleaseReason.ERROR, code, message, delay=RETRY_SECONDS)

    # --- validation -----------------------------------------------------------------------

    def _validate(self, chore: Chore) -> None:
        claim = chore.claim
        models = self._models(claim.tenant_id)
        verdict = BatchValidator(
            endpoint=claim.endpoint,
            models=models,
            max_rows=self._max_rows,
            max_line_bytes=self._max_line_bytes,
            max_reported=self._max_reported,
        ).run(lambda: self._input(chore))
        pool = verdict.pool
        if verdict.bad_lines or pool is None:
            self._commit(
                chore,
                lambda connection: lifecycle.reject_batch(
                    connection,
                    chore.session_id,
                    claim.held,
                    errors=verdict.errors,
                    bad_lines=verdict.bad_lines,
                ),
            )
            return
        self._commit(
            chore,
            lambda connection: lifecycle.finish_validation(
                connection, chore.session_id, claim.held, slices=verdict.slices, pool=pool
            ),
        )
        log.info("batch_validated", job=claim.job_id, rows=verdict.rows, slices=len(verdict.slices))
        self._ringer.ring(pool)

    def _input(self, chore: Chore) -> Iterator[bytes]:
        assert chore.claim.input_key is not None  # noqa: S101 - a batch always has one
        for chunk in self._store.read(chore.claim.input_key):
            if chore.interrupted.is_set():
                raise Interrupted
            yield chunk

    def _models(self, tenant_id: str) -> dict[str, Model]:
        with autocommit(self._database) as connection:
            return {model.id: model for model in list_models(connection, tenant_id)}

    # --- assembly -------------------------------------------------------------------------

    def _assemble(self, chore: Chore) -> None:
        claim = chore.claim
        assembler = Assembler(self._store, claim, chore.interrupted.is_set)
        with autocommit(self._database) as connection:
            slices = list(slices_of(connection, claim.job_id))
        output, errors = assembler.run(slices)
        keep = json.loads(claim.spec).get("output_expires_after_seconds", DEFAULT_KEEP_SECONDS)
        self._commit(
            chore,
            lambda connection: lifecycle.finish_assembly(
                connection,
                chore.session_id,
                claim.held,
                output=_new_file(claim, "output", output),
                errors=_new_file(claim, "errors", errors),
                rows_completed=assembler.rows_completed,
                rows_failed=assembler.rows_failed,
                keep_seconds=keep,
            ),
        )

    # --- commits --------------------------------------------------------------------------

    def _commit(self, chore: Chore, statements: Callable[[Connection], bool]) -> None:
        """Offers the commit until the database answers or the session is proven dead."""
        for delay in delays(base=0.1, cap=5.0):
            try:
                with self._database.begin() as connection:
                    accepted = statements(connection)
                break
            except SQLAlchemyError as error:
                if not is_outage(error):
                    raise
                log.warning("commit_postponed", error=type(error).__name__)
            if self._closing.wait(delay) or self._session.is_lost(chore.session_id):
                return
        if not accepted:
            log.warning("zombie_commit_refused", shard=chore.claim.shard_id)

    def _give_back(
        self,
        chore: Chore,
        reason: ReleaseReason,
        code: str | None = None,
        message: str | None = None,
        *,
        delay: float = 0.0,
    ) -> None:
        def release(connection: Connection) -> bool:
            state = lifecycle.release(
                connection,
                chore.session_id,
                chore.claim.held,
                reason,
                code=code,
                message=message,
                delay_seconds=delay,
            )
            if state == ShardState.READY:
                self._ringer.ring(UPKEEP)
            return True

        with suppress(SQLAlchemyError):
            self._commit(chore, release)


def _new_file(claim: Claim, name: str, stored: StoredObject | None) -> NewFile | None:
    if stored is None:
        return None
    return NewFile(new_file_id(), f"{claim.job_id}_{name}.jsonl", stored)
