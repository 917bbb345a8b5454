"""From a claim to the engines: at once when the claim is all that they need, else by a reader."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy import Engine

from shared.db.models import Model
from shared.errors import PressrunError
from shared.lifecycle.working import Claim
from shared.states import Stage
from shared.storage.base import Store
from shared.translation.thresholds import USUAL, Thresholds
from worker.execution import ShardRun
from worker.generation import Generation
from worker.inputs import Leaving
from worker.model_files import ModelFiles
from worker.reading import Reader, is_plain
from worker.rows import RowInput, single_row
from worker.serving import Unservable
from worker.session import Session
from worker.spool import Spool
from worker.wakeup import Errand, Mailbox

log = structlog.get_logger()

READ_THREADS = 4
MODEL_THREADS = 2
"""Models take minutes to fetch, and must not keep rows from being read."""


class Admission:
    """Has rows and inputs read on other threads. ``begin`` is the supervisor's thread's to call;
    what was read comes back to it by the mailbox."""

    def __init__(
        self,
        *,
        database: Engine,
        store: Store,
        spool: Spool,
        files: ModelFiles,
        session: Session,
        mailbox: Mailbox,
        generation: Generation,
        thresholds: Thresholds = USUAL,
    ) -> None:
        """``thresholds`` are those of moderations."""
        self._mailbox = mailbox
        self._generation = generation
        self._threads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        self._model_threads = ThreadPoolExecutor(MODEL_THREADS, thread_name_prefix="model")
        self._leaving = threading.Event()
        self._reader = Reader(
            database, store, spool, session, self._leaving, files=files, thresholds=thresholds
        )
        generation.on_wants_inputs = self._fetch_more
        generation.placement.on_absent = self._fetch_model

    def begin(self, claim: Claim, session_id: str) -> None:
        """Sees to it that the claimed shard is run."""
        if is_plain(claim):
            self._generation.begin(ShardRun(claim, session_id, single_row(claim)))
            return
        if claim.stage not in (Stage.GENERATE, Stage.STEP):
            raise AssertionError(f"no engine runs the stage {claim.stage}")
        self._generation.expect(claim, session_id)
        self._threads.submit(self._read, claim, session_id)

    def close(self) -> None:
        """Reads nothing more; whatever was being read is given back by others."""
        self._leaving.set()
        for threads in (self._threads, self._model_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, claim: Claim, session_id: str) -> None:
        try:
            run = self._reader.begin(claim, session_id)
        except Leaving:
            return
        except Exception as error:  # the claim would stay held for as long as this worker lives
            errand = self._unreadable(ShardRun(claim, session_id, []), error)
        else:
            errand = _errand(self._generation.begin, run)
        self._mailbox.put(errand)

    def _fetch_more(self, run: ShardRun) -> None:
        rows = [run.rows[index] for index in sorted(run.waiting & run.unfinished)]
        self._threads.submit(self._fetch, run, rows)

    def _fetch(self, run: ShardRun, rows: Sequence[RowInput]) -> None:
        try:
            found = self._reader.gather(run.claim, run.session_id, rows)
        except Leaving:
            return
        except Exception as error:
            errand = self._unreadable(run, error)
        else:
            errand = _errand(self._generation.provide, run, found)
        self._mailbox.put(errand)

    def _fetch_model(self, model: Model) -> None:
        if not self._leaving.is_set():
            self._model_threads.submit(self._bring, model)

    def _bring(self, model: Model) -> None:
        failure: Unservable | None = None
        try:
            self._reader.fetch(model)
        except Leaving:
            return
        except Unservable as error:
            failure = error
        except Exception as error:  # rows would wait for it for ever
            log.error("model_not_fetched", model=model.id, error=type(error).__name__)
            said = "the model could not be fetched"
            failure = Unservable("model_unreadable", said, passing=True)
        self._mailbox.put(_errand(self._generation.placement.fetched, model, failure))

    def _unreadable(self, run: ShardRun, error: Exception) -> Errand:
        log.error("rows_unreadable", shard=run.held.shard_id, error=type(error).__name__)
        code = error.code if isinstance(error, PressrunError) else "input_unreadable"
        return _errand(self._generation.unreadable, run, code, "its input could not be read")


def _errand(call: Callable[..., None], *arguments: object) -> Errand:
    return lambda: call(*arguments)
