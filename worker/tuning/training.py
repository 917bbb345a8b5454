"""The story of one training: prepared, started, followed, and brought to its end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy import Engine

from shared.specs.fine_tuning import FineTuningSpec
from shared.storage.base import Store
from worker.insistence import Insistence
from worker.tuning.checkpoint_store import BadFolder
from worker.tuning.follow import Garbled, MessageReader
from worker.tuning.messages import (
    CHECKPOINTS,
    Failed,
    Finished,
    FromTraining,
    Metrics,
    Note,
    Progressed,
    Saved,
    Started,
    Stopped,
)
from worker.tuning.planning import checkpoint_name, new_model
from worker.tuning.preparing import FindsModels, Preparation, Prepared
from worker.tuning.process import Exit, TrainingProcess
from worker.tuning.recorder import Recorder
from worker.tuning.saving import Saver
from worker.upkeep.assembly import Interrupted
from worker.upkeep.chore import Chore

log = structlog.get_logger()

FOLLOW_SECONDS = 0.2
KEEP_SECONDS = 60.0
"""Between two words to the cache of models that a training reads what it has fetched: checkpoints
and the model are written with the base's files at hand, hours after it was loaded."""
EXIT_SECONDS = 15.0
"""How long a tree may live on after it has finished, for trackers to send what they have left.
After any other last word there is nothing that it could do."""


@dataclass(frozen=True, slots=True)
class Died:
    """The tree ended without a last word."""

    exit: Exit
    tail: str


@dataclass(frozen=True, slots=True)
class Hung:
    """It said nothing for too long, and was killed."""

    seconds: float


LastWord = Finished | Stopped | Failed | Died | Hung


@dataclass
class Order(Chore):
    """One training under way; its events are set from the supervisor's thread."""

    leave: threading.Event = field(default_factory=threading.Event)
    """Save a checkpoint and go: the worker drains, or the tenant has paused the job."""

    def unwanted(self) -> bool:
        return self.interrupted.is_set() or self.leave.is_set()


@dataclass(frozen=True)
class Means:
    """What every training of a worker shares."""

    database: Engine
    store: Store
    models: FindsModels
    threads: Executor
    """For uploads and downloads."""
    insistence: Insistence
    environment: Mapping[str, str]
    """Of the tree: what an engine may inherit."""
    engine_threads: int
    """CPU threads that all ranks of a training share."""
    idle_seconds: float
    """A training that says nothing for longer is killed."""


Prepares = Callable[[Means, Order, Path], Prepared]
"""Brings together in a folder what one kind of job needs, its plan included."""


def prepare_training(means: Means, order: Order, folder: Path) -> Prepared:
    """Of a fine-tuning job. Raises as ``Preparation.run`` does."""
    return Preparation(
        means.database,
        means.store,
        means.threads,
        means.models,
        claim=order.claim,
        spec=FineTuningSpec.model_validate_json(order.claim.spec),
        folder=folder,
        interrupted=order.unwanted,
    ).run()


class Training:
    """One attempt at one training, on the thread that calls ``run``."""

    def __init__(self, means: Means, order: Order, prepare: Prepares, folder: Path) -> None:
        self._means = means
        self._order = order
        self._prepare = prepare
        self.folder = folder
        claim = order.claim
        before = json.loads(claim.detail).get("training", {}).get("seconds", 0.0)
        self._recorder = Recorder(
            means.database, claim.held, order.session_id, seconds_before=before
        )
        self._saver = Saver(
            means.database,
            means.store,
            means.threads,
            means.insistence,
            claim=claim,
            session_id=order.session_id,
            describe=lambda saved, files: new_model(
                checkpoint_name(self.prepared.plan.model, saved.step),
                plan=self.prepared.plan,
                base=self.prepared.base,
                started=self.started,
                files=files,
                detail={"step": saved.step, "metrics": saved.metrics, "job": claim.job_id},
            ),
            recorded=lambda step: self._recorder.recorded_step >= step,
            interrupted=order.interrupted.is_set,
        )
        self._process: TrainingProcess | None = None
        self._heard_at = 0.0
        self._kept_at = 0.0
        self.prepared: Prepared
        self.started = Started(0)

    def run(self) -> LastWord:
        """Prepares, runs and follows. When it returns, no process is left, what was said is
        written, and every checkpoint that was saved is committed.

        Raises Interrupted, CannotTrain, Refused, and what the store and the database raise;
        ``close`` is called in any case."""
        self.prepared = self._prepare(self._means, self._order, self.folder)
        if self._order.leave.is_set():
            raise Interrupted
        for text in self.prepared.notes:
            self._recorder.note(Note(text, "warn"))
        self._process = TrainingProcess(
            self.folder,
            processes=self.prepared.plan.processes,
            environment=self._environment(),
        )
        log.info(
            "training_started",
            job=self._order.claim.job_id,
            recipe=self.prepared.plan.recipe,
            pid=self._process.pid,
            resumed=bool(self.prepared.plan.resume),
        )
        word = self._follow(self._process)
        self._process.kill()
        self._report()
        self._saver.wait()
        return word

    def close(self) -> None:
        """Kills what is left."""
        if self._process is not None:
            self._process.kill()
        self._saver.close()

    @property
    def seconds(self) -> float:
        """What the training has taken, over all attempts."""
        return self._recorder.seconds

    def _environment(self) -> dict[str, str]:
        threads = max(1, self._means.engine_threads // self.prepared.plan.processes)
        return dict(self._means.environment) | {"OMP_NUM_THREADS": str(threads)}

    def _report(self) -> None:
        """Writes what was not written yet, waiting for the database. Raises Stale, Interrupted."""
        while not self._recorder.write():
            self._check_orders()
            self._means.insistence.pause(FOLLOW_SECONDS, self._order.session_id)

    # --- following ----------------------------------------------------------------------------

    def _follow(self, process: TrainingProcess) -> LastWord:
        reader = MessageReader(self.folder)
        self._heard_at = time.monotonic()
        while True:
            exited = process.poll()  # asked before reading, so that no word is lost
            word, heard = self._listen(reader)
            self._recorder.write_if_due()
            self._saver.check()
            self._keep_models()
            self._check_orders()
            if word is not None:
                if isinstance(word, Finished):
                    self._let_exit(process)
                return word
            if exited is not None and not heard and not self._recorder.full:
                return Died(exited, process.log_tail())
            if self._order.leave.is_set():
                process.ask_to_stop()
            silent = time.monotonic() - self._heard_at
            if exited is None and silent > self._means.idle_seconds:
                log.warning("training_hung", job=self._order.claim.job_id, seconds=round(silent))
                return Hung(silent)
            process.trim_log()
            if not heard:
                self._order.interrupted.wait(FOLLOW_SECONDS)

    def _listen(self, reader: MessageReader) -> tuple[LastWord | None, bool]:
        """The last word, if it was said, and whether anything was."""
        if self._recorder.full:  # the database is away: what comes waits in its file
            self._heard_at = time.monotonic()
            return None, False
        try:
            messages = reader.read()
        except Garbled as error:
            log.error("training_garbled", job=self._order.claim.job_id, reason=str(error))
            return Failed("protocol_error", "the training wrote something unreadable"), True
        if messages:
            self._heard_at = time.monotonic()
        for message in messages:
            if isinstance(message, Finished | Stopped | Failed):
                return message, True
            self._take(message)
        return None, bool(messages)

    def _take(self, message: FromTraining) -> None:
        match message:
            case Started():
                self.started = message
                self._recorder.started(message)
                self._recorder.write()
            case Metrics():
                self._recorder.metrics(message)
            case Progressed():
                self._recorder.progressed(message)
            case Note():
                self._recorder.note(message)
            case Saved():
                if Path(message.folder).parent != self.folder / CHECKPOINTS:
                    raise BadFolder("a checkpoint that is not in the training's folder")
                self._recorder.saved(message.step)
                self._recorder.write()
                self._saver.offer(message)

    def _keep_models(self) -> None:
        if time.monotonic() - self._kept_at >= KEEP_SECONDS:
            self._kept_at = time.monotonic()
            for model in self.prepared.models:
                self._means.models.path(model)

    def _check_orders(self) -> None:
        if self._order.interrupted.is_set():
            raise Interrupted

    def _let_exit(self, process: TrainingProcess) -> None:
        deadline = time.monotonic() + EXIT_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            self._check_orders()
            time.sleep(FOLLOW_SECONDS / 4)
