"""Putting rows into engines: in company, or alone in quarantine; waiting for room where need be."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.db.models import Model
from worker.engines.child import ChildDied, EngineChild
from worker.engines.pool import EnginePool
from worker.engines.protocol import Row
from worker.execution import ShardRun
from worker.outputs import RowError
from worker.quarantine import Quarantine
from worker.rows import row_id

log = structlog.get_logger()

STARVING_SECONDS = 15.0
"""How long a model waits for memory before the engines that have it get no new rows."""

ModelLookup = Callable[[str], Model | None]


class Placement:
    """Where rows go next. ``on_failed`` hears of a run some of whose rows can go nowhere."""

    def __init__(
        self, engines: EnginePool, models: ModelLookup, *, on_failed: Callable[[ShardRun], None]
    ) -> None:
        self._engines = engines
        self._models = models
        self._on_failed = on_failed
        self._unplaced: list[tuple[ShardRun, str, list[int]]] = []
        self._waiting_since: dict[str, float] = {}
        """Of models that there is no memory for."""
        self._quarantine: dict[str, Quarantine] = defaultdict(Quarantine)

    def place(self, run: ShardRun, model_id: str, indexes: list[int]) -> None:
        """Submits rows to the model's engine, now or as soon as it can be had."""
        if run.solo:
            self.suspect(run, model_id, indexes)
            self.test_suspects(model_id)
            return
        try:
            model = self._models(model_id)
        except SQLAlchemyError as error:
            log.warning("models_not_read", error=type(error).__name__)
            self._unplaced.append((run, model_id, indexes))
            return
        if model is None:
            self._fail(run, indexes, f"no model named {model_id!r}")
            return
        child = self._engines.get(model)
        if child is None:
            self._waiting_since.setdefault(model_id, time.monotonic())
            self._unplaced.append((run, model_id, indexes))
            return
        self._waiting_since.pop(model_id, None)
        if not _submit(child, run, indexes):
            self._unplaced.append((run, model_id, indexes))

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
                self.place(run, model_id, indexes)
        waiting = {model_id for _, model_id, _ in self._unplaced}
        self._waiting_since = {m: t for m, t in self._waiting_since.items() if m in waiting}
        for model_id in list(self._quarantine):
            self.test_suspects(model_id)

    def forget_waiting(self) -> None:
        self._unplaced.clear()
        self._waiting_since.clear()

    # --- quarantine -----------------------------------------------------------------------

    def suspect(self, run: ShardRun, model_id: str, indexes: Iterable[int]) -> None:
        """Rows that shall run alone, one at a time."""
        for index in indexes:
            self._quarantine[model_id].add(run, index)

    def tested(self, model_id: str) -> None:
        """The row under test has brought its engine down."""
        self._quarantine[model_id].current = None

    def acquit(self, model_id: str) -> None:
        """The culprit is found: the other suspects go back into company."""
        for suspect in self._quarantine[model_id].acquit_all():
            suspect.run.clear(suspect.index)
            self.place(suspect.run, model_id, [suspect.index])

    def test_suspects(self, model_id: str) -> None:
        """Puts the next suspect, if any, alone into the model's quarantine engine."""
        quarantine = self._quarantine.get(model_id)
        if quarantine is None or (suspect := quarantine.next()) is None:
            return
        try:
            model = self._models(model_id)
        except SQLAlchemyError:
            quarantine.put_back()
            return
        if model is None:
            self._fail(suspect.run, [suspect.index], f"no model named {model_id!r}")
            return
        child = self._engines.get(model, quarantine=True)
        if child is None or not _submit(child, suspect.run, [suspect.index]):
            quarantine.put_back()

    def _fail(self, run: ShardRun, indexes: list[int], message: str) -> None:
        for index in indexes:
            run.fail_row(index, RowError("model_not_found", message))
        self._on_failed(run)


def _submit(child: EngineChild, run: ShardRun, indexes: list[int]) -> bool:
    """False when the child is dead: that is judged when its pipe is read."""
    rows = [
        Row(row.index, row.endpoint, row.body, row_id(run.claim, row), row.inputs or {})
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
