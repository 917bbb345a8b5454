"""How an attempt at a training ends: its model and files committed, or the shard given back with
the right budget charged."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from shared.backoff import delay_seconds, delays
from shared.db.models import ModelFile
from shared.errors import StorageFull, StorageUnavailable
from shared.ids import new_file_id
from shared.lifecycle import BadLine, working
from shared.lifecycle.working import NewFile, ReleaseReason, TrainingEnd
from shared.storage.keys import check_key, model_prefix, training_files_prefix
from worker.model_paths import check_files
from worker.tuning.checkpoint_store import BadFolder, list_files, store_folder
from worker.tuning.messages import RESULT, Failed, Finished, ResultFile, Stopped
from worker.tuning.planning import new_model
from worker.tuning.training import Died, Hung, LastWord, Means, Order, Training
from worker.upkeep.assembly import Interrupted
from worker.upkeep.chore import ChoreEnds

log = structlog.get_logger()

MODEL, FILES = "model", "files"
TENANTS_FAULT = frozenset({"data", "request"})
RETRY_SECONDS, RETRY_CAP_SECONDS = 2.0, 60.0

_FRAME = re.compile(r'File "(?:[^"\n]*/)?([^"/\n]+)", line (\d+), in ([\w<>]+)')
_ERROR = re.compile(
    r"^([A-Za-z_][\w.]{0,99}(?:Error|Exception|Interrupt|Exit))(?::|$)", re.MULTILINE
)

Result = TypeVar("Result")


class Ending:
    """Carries the last word of one training to where it belongs."""

    def __init__(self, means: Means, ends: ChoreEnds, order: Order, training: Training) -> None:
        self._means = means
        self._ends = ends
        self._order = order
        self._training = training

    def carry(self, word: LastWord) -> None:
        """Raises Interrupted, Stale, BadFolder, ModelDamaged, and what the store and the database
        raise."""
        match word:
            case Finished():
                self._finish(word)
            case Stopped():
                self._ends.give_back(self._order, ReleaseReason.PREEMPTED)
            case Failed(code, message, blame, param) if blame in TENANTS_FAULT:
                self.fail(code, _storable(message), param)
            case Failed(code, message):
                self._give_back(ReleaseReason.ERROR, code, _storable(message))
            case Died(exit, tail):
                code = "out_of_memory" if exit.out_of_memory else "training_crashed"
                frames, message = what_died(str(exit), tail)
                log.warning("training_died", job=self._order.claim.job_id, frames=frames)
                self._give_back(ReleaseReason.CRASHED, code, message)
            case Hung(seconds):
                message = f"the training said nothing for {seconds:.0f} seconds"
                self._give_back(ReleaseReason.ERROR, "training_hung", message)

    def fail(
        self, code: str, message: str, param: str | None, *, errors: Sequence[BadLine] = ()
    ) -> None:
        """Fails the job: another try would end like this one. Raises Stale."""
        self._commit(lambda connection: self.failure(connection, code, message, param, errors))
        log.info("training_failed", job=self._order.claim.job_id, code=code)

    def _commit(self, statements: Callable[[Connection], bool]) -> bool:
        """Offers them until the database answers; False when somebody else holds the shard."""
        claim, session_id = self._order.claim, self._order.session_id

        def commit() -> bool:
            with self._means.database.begin() as connection:
                return statements(connection)

        accepted = self._means.insistence.insist(commit, session_id)
        if not accepted:
            log.warning("zombie_commit_refused", shard=claim.shard_id)
        return accepted

    # --- what the kinds of jobs have of their own ---------------------------------------------

    def failure(
        self,
        connection: Connection,
        code: str,
        message: str,
        param: str | None,
        errors: Sequence[BadLine],
    ) -> bool:
        claim, session_id = self._order.claim, self._order.session_id
        return working.fail_training(
            connection, session_id, claim.held, code=code, message=message, param=param
        )

    def success(self, said: Finished) -> Callable[[Connection], bool]:
        """Stores what was made, and gives what there is to commit."""
        claim, session_id = self._order.claim, self._order.session_id
        end = self._end(said)
        return lambda connection: working.finish_training(connection, session_id, claim.held, end)

    def _give_back(self, reason: ReleaseReason, code: str, message: str) -> None:
        claim = self._order.claim
        log.warning("training_broken", job=claim.job_id, code=code, reason=str(reason))
        pause = delay_seconds(claim.epoch, base=RETRY_SECONDS, cap=RETRY_CAP_SECONDS)
        self._ends.give_back(self._order, reason, code, message, delay=pause)

    # --- success ------------------------------------------------------------------------------

    def _finish(self, said: Finished) -> None:
        if self._commit(self.success(said)):
            log.info(
                "training_finished",
                job=self._order.claim.job_id,
                step=said.step,
                files=len(said.files),
            )

    def _store_model(self) -> list[ModelFile]:
        claim, folder = self._order.claim, self._training.folder / RESULT / MODEL
        prefix = model_prefix(claim.tenant_id, claim.job_id, claim.epoch)
        files = self._insist_on_store(
            lambda: store_folder(
                self._means.store,
                self._means.threads,
                folder,
                prefix,
                self._order.interrupted.is_set,
            )
        )
        check_files(files)
        return files

    def _end(self, said: Finished) -> TrainingEnd:
        claim, training = self._order.claim, self._training
        files = self._store_model()
        detail = {
            "job": claim.job_id,
            "step": said.step,
            "metrics": said.metrics,
            "trained_tokens": said.trained_tokens,
            "data": dict(training.prepared.data.said),
        }
        model = new_model(
            training.prepared.plan.model,
            plan=training.prepared.plan,
            base=training.prepared.base,
            started=training.started,
            files=files,
            detail=detail,
        )
        return TrainingEnd(
            model=model,
            files=self._store_reports(said),
            metrics=said.metrics,
            trained_tokens=said.trained_tokens,
            step=said.step,
            seconds=training.seconds,
        )

    def _store_reports(self, said: Finished) -> list[NewFile]:
        return self._insist_on_store(lambda: self._store_results(said.files))

    def _store_results(self, files: list[ResultFile]) -> list[NewFile]:
        claim = self._order.claim
        folder = self._training.folder / RESULT / FILES
        there = set(list_files(folder)) if folder.is_dir() else set()
        prefix = training_files_prefix(claim.tenant_id, claim.job_id, claim.epoch)
        made = []
        for file in files:
            if file.path not in there:
                raise BadFolder(f"there is no result file {file.path!r}")
            if self._order.interrupted.is_set():
                raise Interrupted
            key = check_key(prefix + file.path)
            path = Path(folder, *PurePosixPath(file.path).parts)
            stored = self._means.store.put_file(key, path, media_type=file.media_type)
            name = f"{claim.job_id}_{file.path.replace('/', '_')}"
            made.append(NewFile(new_file_id(), name, stored))
        return made

    def _insist_on_store(self, call: Callable[[], Result]) -> Result:
        """A training that took hours is not repeated because the store is away for a while."""
        for delay in delays(base=0.5, cap=30.0):
            try:
                return call()
            except (StorageUnavailable, StorageFull) as error:
                log.warning(
                    "result_postponed", job=self._order.claim.job_id, error=type(error).__name__
                )
            if self._order.interrupted.is_set():
                raise Interrupted
            self._means.insistence.pause(delay, self._order.session_id)
        raise AssertionError("delays() never ends")


def what_died(exit: str, tail: str) -> tuple[list[str], str]:
    """Where it died, for those who have to find out why, and what the tenant is told. Of what the
    training printed only places in code and the error's type: the rest may hold data or paths."""
    frames = [f"{name}:{line} {function}" for name, line, function in _FRAME.findall(tail)]
    errors = _ERROR.findall(tail)
    return frames, f"{exit} ({errors[-1]})" if errors else exit


def _storable(message: str) -> str:
    """Postgres takes no NUL in a text, and a shard whose release it refuses is held for ever."""
    return message.replace("\0", "\ufffd")
