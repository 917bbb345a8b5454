"""Putting rows into engines: in company, or alone in quarantine; waiting for room where need be."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.db.models import Model
from shared.lifecycle.working import ReleaseReason
from worker.engines.child import ChildDied, EngineChild
from worker.engines.pool import EnginePool
from worker.engines.protocol import Row
from worker.execution import ShardRun
from worker.outputs import RowError
from worker.quarantine import Quarantine
from worker.rows import row_id
from worker.serving import Absent, LocalFiles, ModelLookup, Served, Unservable, serve

log = structlog.get_logger()

STARVING_SECONDS = 15.0
"""How long a model waits for memory before the engines that have it get no new rows."""
FETCH_RETRY_SECONDS = 5.0


class Endings(Protocol):
    """How a run leaves this worker."""

    def end_if_done(self, run: ShardRun) -> None: ...

    def give_back(
        self,
        run: ShardRun,
        reason: ReleaseReason,
        *,
        code: str | None = None,
        message: str | None = None,
        delay_seconds: float = 0.0,
    ) -> None: ...


class Placement:
    """Where rows go next."""

    def __init__(
        self, engines: EnginePool, models: ModelLookup, files: LocalFiles, endings: Endings
    ) -> None:
        self._engines = engines
        self._models = models
        self._files = files
        self._endings = endings
        self.on_absent: Callable[[Model], None] = lambda model: None
        """Told of a model whose files are to be fetched; ``fetched`` hears what came of it."""
        self._unplaced: list[tuple[ShardRun, str, list[int]]] = []
        self._waiting_since: dict[str, float] = {}
        """Of models that there is no memory for."""
        self._fetching: set[str] = set()
        self._unfetched: dict[str, Unservable] = {}
        """Models whose fetching has failed, while those who waited for it are told."""
        self._engine_of: dict[str, str] = {}
        """Whose engine serves a model: its base's, or its own."""
        self._quarantine: dict[str, Quarantine] = defaultdict(Quarantine)
        """By engine: a suspect is alone in it, whichever adapters other suspects have."""

    def place(self, run: ShardRun, indexes: Iterable[int]) -> None:
        """Submits rows to their models' engines, now or as soon as those can be had."""
        by_model: dict[str, list[int]] = defaultdict(list)
        for index in indexes:
            by_model[run.rows[index].model].append(index)
        for model_id, members in by_model.items():
            if run.ending:  # given back for the sake of a model before
                return
            self._place(run, model_id, members)

    def _place(self, run: ShardRun, model_id: str, indexes: list[int]) -> None:
        try:
            served = self._serve(model_id)
        except (Absent, SQLAlchemyError):
            self._unplaced.append((run, model_id, indexes))
            return
        except Unservable as why:
            self._refuse(run, indexes, why)
            return
        if run.solo:
            self.suspect(run, indexes)
            self.test_suspects(model_id)
            return
        child = self._engines.get(served.engine)
        if child is None:
            self._waiting_since.setdefault(model_id, time.monotonic())
            self._unplaced.append((run, model_id, indexes))
            return
        self._waiting_since.pop(model_id, None)
        if not _submit(child, run, indexes, served):
            self._unplaced.append((run, model_id, indexes))

    def _serve(self, model_id: str) -> Served:
        """Raises Unservable; or Absent or SQLAlchemyError, after which it is to be asked again."""
        try:
            served = serve(model_id, self._models, self._files)
        except SQLAlchemyError as error:
            log.warning("models_not_read", error=type(error).__name__)
            raise
        except Absent as absent:
            missing = absent.model
            if missing.id in self._unfetched:
                raise self._unfetched[missing.id] from None
            if missing.id not in self._fetching:
                self._fetching.add(missing.id)
                self.on_absent(missing)
            raise
        self._engine_of[model_id] = served.engine.id
        return served

    def _refuse(self, run: ShardRun, indexes: list[int], why: Unservable) -> None:
        if why.passing:
            self._endings.give_back(
                run,
                ReleaseReason.ERROR,
                code=why.code,
                message=why.message,
                delay_seconds=FETCH_RETRY_SECONDS,
            )
            return
        for index in indexes:
            run.fail_row(index, RowError(why.code, why.message))
        self._endings.end_if_done(run)

    def loaded(self) -> set[str]:
        """Models whose rows need not wait for a load, as far as it is known."""
        engines = {key[0] for key, _ in self._engines.children() if not key[1]}
        return engines | {model for model, engine in self._engine_of.items() if engine in engines}

    @property
    def starving(self) -> bool:
        """Whether a model has waited for memory so long that the others should run dry: an engine
        that always has rows would never make room for it."""
        oldest = min(self._waiting_since.values(), default=None)
        return oldest is not None and time.monotonic() - oldest > STARVING_SECONDS

    def retry(self) -> None:
        """Places what had to wait for room or for the database, and goes on testing suspects."""
        unplaced, self._unplaced = self._unplaced, []
        for run, model_id, indexes in unplaced:
            if not run.ending:
                self._place(run, model_id, indexes)
        waiting = {model_id for _, model_id, _ in self._unplaced}
        self._waiting_since = {m: t for m, t in self._waiting_since.items() if m in waiting}
        for model_id in list(self._quarantine):
            self.test_suspects(model_id)

    def fetched(self, model: Model, failure: Unservable | None) -> None:
        """The model's files are on this machine, or can't be had."""
        self._fetching.discard(model.id)
        if failure is not None:
            self._unfetched[model.id] = failure
        self.retry()
        self._unfetched.clear()

    def forget_waiting(self) -> None:
        self._unplaced.clear()
        self._waiting_since.clear()

    # --- quarantine -----------------------------------------------------------------------

    def suspect(self, run: ShardRun, indexes: Iterable[int]) -> None:
        """Rows that shall run alone, one at a time."""
        for index in indexes:
            self._line_of(run.rows[index].model).add(run, index)

    def tested(self, model_id: str) -> None:
        """The row under test has brought its engine down."""
        self._line_of(model_id).current = None

    def acquit(self, model_id: str) -> None:
        """The culprit is found: the other suspects go back into company."""
        for suspect in self._line_of(model_id).acquit_all():
            suspect.run.clear(suspect.index)
            self.place(suspect.run, [suspect.index])

    def test_suspects(self, model_id: str) -> None:
        """Puts the next suspect, if any, alone into the quarantine engine of the model."""
        quarantine = self._quarantine.get(self._engine_of.get(model_id, model_id))
        if quarantine is None or (suspect := quarantine.next()) is None:
            return
        try:
            served = self._serve(suspect.model)
        except (Absent, SQLAlchemyError):
            quarantine.put_back()
            return
        except Unservable as why:
            self._refuse(suspect.run, [suspect.index], why)
            return
        child = self._engines.get(served.engine, quarantine=True)
        if child is None or not _submit(child, suspect.run, [suspect.index], served):
            quarantine.put_back()

    def _line_of(self, model_id: str) -> Quarantine:
        return self._quarantine[self._engine_of.get(model_id, model_id)]


def _submit(child: EngineChild, run: ShardRun, indexes: list[int], served: Served) -> bool:
    """False when the child is dead: that is judged when its pipe is read."""
    rows = [
        Row(
            row.index,
            row.engine_endpoint or row.endpoint,
            row.body,
            row_id(run.claim, row),
            row.inputs or {},
            served.adapter,
            served.adapter_name,
        )
        for row in map(run.rows.__getitem__, indexes)
        if row.index in run.unfinished
    ]
    if not child.rows_in_flight:
        child.last_heard = time.monotonic()  # its idle clock starts with the work
    try:
        child.submit(run.held.shard_id, run.held.epoch, rows)
    except ChildDied:
        return False
    return True
