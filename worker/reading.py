"""From a claim to rows that an engine can take, on reader threads: slices, steps, their inputs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.backoff import delays
from shared.db.models import Model
from shared.db.session import is_outage
from shared.errors import InvalidRequest, NotFound, PressrunError, StorageUnavailable
from shared.lifecycle.working import Claim
from shared.plans import PlanError
from shared.states import Stage
from shared.storage.base import Store
from shared.translation import ENGINE_ENDPOINTS
from shared.translation.thresholds import USUAL, Thresholds
from worker.execution import ShardRun
from worker.inputs import TAKES_MEDIA, Gathered, Gathering, Leaving, refused
from worker.model_files import ModelFiles
from worker.model_paths import ModelDamaged
from worker.rows import RowInput, read_slice, single_row
from worker.serving import Unservable
from worker.session import Session
from worker.spool import Spool
from worker.steps import read_step
from worker.translating import Translator

log = structlog.get_logger()

READ_PATIENCE_SECONDS = 300.0
"""For how long rows and their inputs are asked of a store or a database that does not answer,
before the shard is given back with ``error_n`` charged."""
READ_PAUSE_CAP_SECONDS = 10.0

Result = TypeVar("Result")


def is_plain(claim: Claim) -> bool:
    """Whether the claim itself is all that its engine needs."""
    return (
        claim.stage == Stage.GENERATE
        and claim.kind != "batch"
        and claim.endpoint not in TAKES_MEDIA
        and claim.endpoint not in ENGINE_ENDPOINTS
    )


class Reader:
    """Reads what a claim stands for; safe on several threads at once."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        spool: Spool,
        session: Session,
        leaving: threading.Event,
        *,
        files: ModelFiles,
        thresholds: Thresholds = USUAL,
    ) -> None:
        """``thresholds`` are those of moderations."""
        self._translator = Translator(thresholds)
        self._database = database
        self._store = store
        self._files = files
        self._spool = spool
        self._session = session
        self._leaving = leaving

    def begin(self, claim: Claim, session_id: str) -> ShardRun:
        """The shard with its rows and their inputs, also when the store or the database is away
        for some minutes; rows whose inputs can't be had have their answer already.

        Raises Leaving, PressrunError, SQLAlchemyError or ValueError.
        """
        try:
            rows = self._patiently(claim, session_id, lambda: self._rows(claim))
        except (PlanError, InvalidRequest) as error:
            if claim.stage != Stage.STEP:
                raise
            return _refused_step(claim, session_id, error)
        run = ShardRun(claim, session_id, self._translator.rows(claim, rows))
        if any(row.endpoint in TAKES_MEDIA for row in rows):
            run.provide(self.gather(claim, session_id, rows))
        return run

    def gather(self, claim: Claim, session_id: str, rows: Sequence[RowInput]) -> Gathered:
        """The inputs of rows. Raises as ``begin`` does."""
        gathering = Gathering(
            self._database, self._store, self._spool, claim, leaving=self._leaving.is_set
        )
        try:
            return self._patiently(claim, session_id, lambda: gathering.run(rows))
        except BaseException:
            gathering.discard()
            raise

    def fetch(self, model: Model) -> None:
        """Brings a model's files to this machine, also when the store is away for some minutes.

        Raises Unservable and Leaving.
        """
        give_up = time.monotonic() + READ_PATIENCE_SECONDS
        for pause in delays(base=0.5, cap=READ_PAUSE_CAP_SECONDS):
            try:
                self._files.local(model, self._leaving.is_set)
            except NotFound:
                message = f"the files of the model {model.id!r} are not there any more"
                raise Unservable("model_not_found", message) from None
            except ModelDamaged as error:
                log.error("model_damaged", model=model.id, why=str(error))
                raise Unservable(error.code, f"the model {model.id!r} is damaged") from None
            except StorageUnavailable as error:
                log.warning("model_postponed", model=model.id)
                if time.monotonic() >= give_up:
                    raise Unservable(error.code, error.message, passing=True) from None
            else:
                return
            if self._leaving.wait(pause):
                raise Leaving

    def _rows(self, claim: Claim) -> list[RowInput]:
        if claim.stage == Stage.STEP:
            return [read_step(self._database, claim)]
        if claim.kind == "batch":
            return read_slice(self._store, claim)
        return single_row(claim)

    def _patiently(self, claim: Claim, session_id: str, read: Callable[[], Result]) -> Result:
        give_up = time.monotonic() + READ_PATIENCE_SECONDS
        for pause in delays(base=0.5, cap=READ_PAUSE_CAP_SECONDS):
            try:
                return read()
            except (StorageUnavailable, SQLAlchemyError) as error:
                if isinstance(error, SQLAlchemyError) and not is_outage(error):
                    raise
                if time.monotonic() >= give_up or self._session.is_lost(session_id):
                    raise
                log.warning("rows_postponed", shard=claim.shard_id, error=type(error).__name__)
            if self._leaving.wait(pause):
                break
        raise Leaving


def _refused_step(claim: Claim, session_id: str, error: PressrunError) -> ShardRun:
    """A step whose body can't be made of what the earlier steps made."""
    row = RowInput(0, claim.step_line, None, claim.endpoint, claim.model or "", b"{}")
    run = ShardRun(claim, session_id, [row])
    run.take(refused(claim, row, error))
    return run
