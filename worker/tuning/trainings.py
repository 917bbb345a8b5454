"""The train pool's desk: trainings of this worker, each on a thread of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from sqlalchemy import Engine

from shared.doorbell import Ringer
from shared.lifecycle.model_jobs import EVALUATION, OPTIMIZATION
from shared.lifecycle.working import Claim, Held, ReleaseReason, Watched
from shared.states import Stage
from shared.storage.base import Store
from worker.insistence import Insistence, Stale
from worker.session import Session
from worker.tuning.ending import Ending
from worker.tuning.model_job_endings import EvaluationEnding, OptimizationEnding
from worker.tuning.model_jobs import prepare_evaluation, prepare_optimization
from worker.tuning.preparing import CannotTrain, FindsModels
from worker.tuning.saving import Refused
from worker.tuning.training import Means, Order, Prepares, Training, prepare_training
from worker.upkeep.assembly import Interrupted
from worker.upkeep.chore import ChoreEnds

log = structlog.get_logger()

KINDS: Mapping[str, tuple[Prepares, type[Ending]]] = {
    "fine_tune": (prepare_training, Ending),
    EVALUATION: (prepare_evaluation, EvaluationEnding),
    OPTIMIZATION: (prepare_optimization, OptimizationEnding),
}
"""Kinds of jobs that run here: how one begins, and how it ends."""
TRANSFERS = 4
"""Files that go to or come from the store at a time."""


class Trainings:
    """Runs shards of stage ``train``. ``begin``, ``obey``, ``drain`` and ``abandon_all`` are called
    by the supervisor's thread; what may take time happens on others."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        session: Session,
        ringer: Ringer,
        models: FindsModels,
        *,
        on_closed: Callable[[Held], None],
        folder: Path,
        environment: Mapping[str, str],
        slots: int,
        threads: int | None,
        idle_seconds: float,
    ) -> None:
        """``folder`` is this worker's alone and goes with it; ``threads`` are CPU threads of a
        training, None for one on each core."""
        self._slots = slots
        self._on_closed = on_closed
        self._folder = folder
        self._ends = ChoreEnds(database, session, ringer)
        self._insistence = Insistence(session)
        self._transfers = ThreadPoolExecutor(TRANSFERS, thread_name_prefix="transfer")
        self._means = Means(
            database=database,
            store=store,
            models=models,
            threads=self._transfers,
            insistence=self._insistence,
            environment=environment,
            engine_threads=threads or os.cpu_count() or 1,
            idle_seconds=idle_seconds,
        )
        self._orders: dict[Held, Order] = {}
        self._running: dict[Held, threading.Thread] = {}

    def room(self) -> int:
        return max(0, self._slots - len(self._orders))

    def apart(self) -> Sequence[str]:
        """Nobody: trainings give way by pausing, and last for hours either way."""
        return ()

    @property
    def idle(self) -> bool:
        return not self._orders

    def begin(self, claim: Claim, session_id: str) -> None:
        order = self._orders[claim.held] = Order(claim, session_id)
        thread = threading.Thread(
            target=self._run, args=(order,), name=f"training-{claim.shard_id}", daemon=True
        )
        self._running[claim.held] = thread
        thread.start()

    def obey(self, watched: Sequence[Watched]) -> None:
        """Ends at once what was taken away or cancelled; lets what was paused save itself."""
        held = {item.held: item for item in watched}
        for key, order in list(self._orders.items()):
            item = held.get(key)
            if item is None or item.stop_reason is not None:
                order.interrupted.set()
            elif item.paused:
                order.leave.set()

    def drain(self) -> None:
        """Has every training save a checkpoint and give its shard back."""
        for order in list(self._orders.values()):
            order.leave.set()

    def abandon_all(self) -> None:
        """Ends every training at once."""
        for order in list(self._orders.values()):
            order.interrupted.set()

    def close(self) -> None:
        """Ends what is left; each gives its shard back before this returns. With the database away
        it does not wait: the shards are recovered when the lease ends."""
        self._ends.close()
        self._insistence.let_go()
        self.abandon_all()
        for thread in list(self._running.values()):
            thread.join()
        self._transfers.shutdown(wait=True, cancel_futures=True)

    # --- on a training's thread ---------------------------------------------------------------

    def _run(self, order: Order) -> None:
        claim, began = order.claim, time.monotonic()
        folder = self._folder / secrets.token_hex(16)
        try:
            self._attempt(order, folder)
        except Interrupted:
            self._ends.give_back(order, ReleaseReason.PREEMPTED)
        except (Stale, Refused) as error:
            log.warning("training_dropped", job=claim.job_id, reason=type(error).__name__)
        except Exception as error:
            self._ends.judge(order, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._orders.pop(claim.held, None)
            self._running.pop(claim.held, None)
            self._on_closed(claim.held)
            seconds = round(time.monotonic() - began, 3)
            log.info("training_off_the_books", job=claim.job_id, seconds=seconds)

    def _attempt(self, order: Order, folder: Path) -> None:
        if order.claim.stage != Stage.TRAIN:
            raise AssertionError(f"this pool has no stage {order.claim.stage}")
        folder.mkdir(parents=True, mode=0o700)
        prepare, ends = KINDS[order.claim.kind]
        training = Training(self._means, order, prepare, folder)
        ending = ends(self._means, self._ends, order, training)
        try:
            ending.carry(training.run())
        except CannotTrain as error:
            ending.fail(error.code, error.message, error.param, errors=error.errors)
        finally:
            training.close()
