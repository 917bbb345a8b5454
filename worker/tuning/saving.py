"""Checkpoints on their way to the store while their training goes on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import structlog
from sqlalchemy import Engine

from shared.backoff import delays
from shared.db.models import ModelFile
from shared.errors import StorageFull, StorageUnavailable
from shared.ids import new_checkpoint_id
from shared.lifecycle import working
from shared.lifecycle.working import Claim, NewCheckpoint, NewModel
from shared.storage.base import Store, StoredObject
from shared.storage.keys import checkpoint_prefix
from worker.insistence import Insistence
from worker.tuning.checkpoint_store import forget, store_checkpoint
from worker.tuning.messages import Saved
from worker.upkeep.assembly import Interrupted

log = structlog.get_logger()

MODEL_FOLDER = "model/"
RECORDED_SECONDS = 0.05
DescribeModel = Callable[[Saved, Sequence[ModelFile]], NewModel]


class Refused(Exception):
    """The fence refused a checkpoint: somebody else holds the shard."""


class Saver:
    """Stores the checkpoints of one training, one after the other, on a thread of its own.

    A store that is slow or away holds nothing up: of the checkpoints that wait, only the newest
    and the best are kept.
    """

    def __init__(
        self,
        database: Engine,
        store: Store,
        threads: Executor,
        insistence: Insistence,
        *,
        claim: Claim,
        session_id: str,
        describe: DescribeModel,
        recorded: Callable[[int], bool],
        interrupted: Callable[[], bool],
    ) -> None:
        """``recorded`` says whether the numbers of all steps up to this one are written: a
        checkpoint is committed after them, for nobody takes those steps again."""
        self._database = database
        self._store = store
        self._threads = threads
        self._insistence = insistence
        self._claim = claim
        self._session_id = session_id
        self._describe = describe
        self._recorded = recorded
        self._closing = threading.Event()
        self._unwanted = interrupted
        self._lock = threading.Lock()
        self._waiting: list[Saved] = []
        self._futures: list[Future[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")

    def offer(self, saved: Saved) -> None:
        """Has a checkpoint stored and committed, and its folder removed."""
        with self._lock:
            all_ = [*self._waiting, saved]
            needless = [item for n, item in enumerate(all_) if _is_needless(item, all_[n + 1 :])]
            self._waiting = [item for item in all_ if item not in needless]
        for item in needless:
            self._skip(item)
        self._futures.append(self._thread.submit(self._next))

    def check(self) -> None:
        """Raises what ended a checkpoint: Refused, Stale, BadFolder, SQLAlchemyError, OSError."""
        while self._futures and self._futures[0].done():
            self._futures.pop(0).result()

    def wait(self) -> None:
        """Returns when nothing waits any more. Raises as ``check`` does, and Interrupted."""
        for future in self._futures:
            future.result()
        self._futures.clear()

    def close(self) -> None:
        """Lets go of what waits; what is under way ends at its next file."""
        self._closing.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> None:
        with self._lock:
            if not self._waiting:  # what was to come has become needless
                return
            saved = self._waiting.pop(0)
        folder = Path(saved.folder)
        try:
            stored = self._stored(saved, folder)
            if stored is not None:
                self._commit(saved, *stored)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _skip(self, saved: Saved) -> None:
        log.info("checkpoint_skipped", job=self._claim.job_id, step=saved.step)
        shutil.rmtree(saved.folder, ignore_errors=True)

    def _stored(self, saved: Saved, folder: Path) -> tuple[list[ModelFile], StoredObject] | None:
        """Files and manifest; None when a newer checkpoint makes it needless before the store has
        taken it."""
        job_id, prefix = self._claim.job_id, self._prefix(saved)
        for delay in delays(base=0.5, cap=30.0):
            if self._interrupted():
                raise Interrupted
            with self._lock:
                needless = _is_needless(saved, self._waiting)
            if needless:
                self._skip(saved)
                return None
            try:
                return store_checkpoint(
                    self._store, self._threads, folder, prefix, self._interrupted
                )
            except (StorageUnavailable, StorageFull) as error:
                log.warning("checkpoint_postponed", job=job_id, error=type(error).__name__)
            self._insistence.pause(delay, self._session_id)
        raise AssertionError("delays() never ends")

    def _commit(self, saved: Saved, files: list[ModelFile], manifest: StoredObject) -> None:
        model_files = [
            ModelFile(file.path.removeprefix(MODEL_FOLDER), file.key, file.bytes, file.sha256)
            for file in files
            if file.path.startswith(MODEL_FOLDER)
        ]
        new = NewCheckpoint(
            id=new_checkpoint_id(),
            step=saved.step,
            prefix=self._prefix(saved),
            manifest_key=manifest.key,
            manifest_sha256=manifest.sha256,
            files=files,
            model_files=model_files,
            bytes=sum(file.bytes for file in files),
            metrics=saved.metrics,
            best=saved.best,
            model=self._describe(saved, model_files),
        )
        self._wait_recorded(saved.step)
        dropped = self._insistence.insist(lambda: self._add(new), self._session_id)
        if dropped is None:
            raise Refused
        removed = forget(self._store, dropped)
        log.info(
            "checkpoint_stored",
            job=self._claim.job_id,
            step=saved.step,
            bytes=new.bytes,
            best=saved.best,
            dropped=removed,
        )

    def _interrupted(self) -> bool:
        return self._unwanted() or self._closing.is_set()

    def _wait_recorded(self, step: int) -> None:
        while not self._recorded(step):
            if self._interrupted():
                raise Interrupted
            self._insistence.pause(RECORDED_SECONDS, self._session_id)

    def _add(self, new: NewCheckpoint) -> Sequence[str] | None:
        with self._database.begin() as connection:
            return working.add_checkpoint(connection, self._session_id, self._claim.held, new)

    def _prefix(self, saved: Saved) -> str:
        claim = self._claim
        return checkpoint_prefix(claim.tenant_id, claim.job_id, claim.epoch, saved.step)


def _is_needless(saved: Saved, later: Sequence[Saved]) -> bool:
    """Whether nobody would miss it, given those that came after it."""
    return bool(later) and (not saved.best or any(other.best for other in later))
