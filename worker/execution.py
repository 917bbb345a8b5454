"""The story of one shard: rows in, results one by one, an end to commit."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import structlog

from shared.lifecycle.working import Claim, GenerationEnd, Held, NewArtifact, SliceEnd
from shared.states import ShardState, Stage, StopReason
from shared.storage.base import Store
from worker.consumption import Consumed
from worker.engines.protocol import RowResult
from worker.inputs import Gathered
from worker.outputs import (
    RowError,
    error_line,
    response_line,
    stopped_error,
    store_files,
    store_lines,
)
from worker.rows import RowInput
from worker.spool import BadFile, Spool, Taken, remove

log = structlog.get_logger()

STRIKES_BEFORE_SOLO = 2
"""Crashes a row may witness in company: one is an accident, with two it is a suspect."""
SOLO_CRASHES = 2
"""Crashes of the engine with the row alone in it; then the row is to blame."""
HTTP_ERROR = 400
BAD_FILE = RowError("engine_error", "a file that the engine made is not what it described")

Storing = Callable[[], list[NewArtifact]]


@dataclass
class Filed:
    """An engine's answer that counts once its files are stored."""

    result: RowResult
    files: Sequence[Taken]
    upload: Future[list[NewArtifact]] | None = None


class ShardRun:
    """A claimed shard while this worker runs it. Touched by the supervisor's thread alone, until
    it ends; ``end_…`` may then run on another.
    """

    def __init__(self, claim: Claim, session_id: str, rows: Iterable[RowInput]) -> None:
        self.claim = claim
        self.session_id = session_id
        self.held: Held = claim.held
        self.rows = {row.index: row for row in rows}
        self.unfinished = set(self.rows)
        self.waiting: set[int] = set()
        """Rows whose inputs there was no room for yet."""
        self.fetching = False
        """Those inputs are being fetched."""
        self.solo = claim.suspect
        self.stop_reason: StopReason | None = claim.stop_reason
        self.cut_short = False
        self.ending = False
        """Handed over for its commit; nothing may change any more."""
        self.completed = 0
        self.failed = 0
        self._strikes: dict[int, int] = defaultdict(int)
        self._output: list[bytes] = []
        self._errors: list[bytes] = []
        self._usage: dict[tuple[str, str], Consumed] = {}
        self._single: RowResult | RowError | None = None
        self._filed: dict[int, Filed] = {}
        self._artifacts: list[NewArtifact] = []
        self._inputs: list[Path] = []
        self._outputs: list[Path] = []

    @property
    def is_batch(self) -> bool:
        """Whether it is a slice of a batch; a step that works for a batch's row is not."""
        return self.claim.kind == "batch" and self.claim.stage == Stage.GENERATE

    @property
    def has_files(self) -> bool:
        """Whether answers wait for their files to be stored."""
        return bool(self._filed)

    @property
    def done(self) -> bool:
        return not self.unfinished

    def take(self, result: RowResult, files: Sequence[Taken] = ()) -> None:
        """Books an engine's answer to a row; a second answer to the same row is dropped."""
        self._outputs += [taken.path for taken in files]
        if result.index not in self.unfinished:
            return
        self.unfinished.discard(result.index)
        result = self.rows[result.index].answered(result)
        good = result.status < HTTP_ERROR
        self.completed += good
        self.failed += not good
        if files and good:
            self._filed[result.index] = Filed(result, files)
        else:
            self._book(result)

    def take_filed(self, result: RowResult, spool: Spool, folder: str) -> None:
        """``take`` for an answer whose files are in the engine's ``folder``; one that is not there
        fails the row."""
        try:
            files = spool.take_all(folder, result.files)
        except BadFile as why:
            self._refuse(result.index, why)
            self.fail_row(result.index, BAD_FILE)
        else:
            self.take(result, files)

    def _refuse(self, index: int, why: BadFile) -> None:
        log.error("output_refused", shard=self.held.shard_id, row=index, why=str(why))

    def _book(self, result: RowResult) -> None:
        row = self.rows[result.index]
        good = result.status < HTTP_ERROR
        if good:
            self._usage.setdefault((row.endpoint, row.model), Consumed()).add(result)
        if self.is_batch:
            lines = self._output if good else self._errors
            lines.append(response_line(self.claim.job_id, row, result.status, result.body))
        else:
            self._single = result

    def fail_row(self, index: int, error: RowError) -> None:
        """Ends a row without an engine's answer."""
        if index not in self.unfinished:
            return
        self.unfinished.discard(index)
        self.failed += 1
        self._book_error(index, error)

    def _book_error(self, index: int, error: RowError) -> None:
        row = self.rows[index]
        if self.is_batch:
            self._errors.append(error_line(self.claim.job_id, row.line, row.custom_id, error))
        else:
            self._single = error

    # --- files ----------------------------------------------------------------------------

    def provide(self, found: Gathered) -> None:
        """What came of fetching the inputs of rows."""
        self.rows |= {row.index: row for row in found.rows}
        self.fetching = False
        self.waiting = {row.index for row in found.later}
        self._inputs += found.paths
        for refusal in found.refused:
            self.take(refusal)

    @property
    def wants_inputs(self) -> bool:
        """Whether all rows have ended but those that wait for their inputs."""
        return bool(self.waiting) and not self.fetching and not self.unfinished - self.waiting

    def drop_inputs(self) -> None:
        """Removes the inputs: nobody reads them any more."""
        inputs, self._inputs = self._inputs, []
        remove(inputs)

    def discard(self) -> None:
        """Removes the run's files: it is off the books."""
        self.drop_inputs()
        outputs, self._outputs = self._outputs, []
        remove(outputs)

    def store_early(
        self, store: Store, submit: Callable[[Storing], Future[list[NewArtifact]]]
    ) -> None:
        """Begins to store what is filed on threads that ``submit`` knows."""
        for index, filed in self._filed.items():
            if filed.upload is None:
                filed.upload = submit(self._storing(store, index, filed.files))

    def store_files(self, store: Store) -> None:
        """Stores the files of every row, and books the rows. Blocks on the store; called again
        after StorageUnavailable or StorageFull, it goes on where it was."""
        for index, filed in list(self._filed.items()):
            upload, filed.upload = filed.upload, None
            try:
                made = upload.result() if upload else self._storing(store, index, filed.files)()
            except BadFile as why:
                self._refuse(index, why)
                self.completed -= 1
                self.failed += 1
                self._book_error(index, BAD_FILE)
            else:
                self._artifacts += made
                self._book(filed.result)
            del self._filed[index]

    def _storing(self, store: Store, index: int, files: Sequence[Taken]) -> Storing:
        def store_and_remove() -> list[NewArtifact]:
            made = store_files(store, self.claim, self.rows[index], files)
            remove(taken.path for taken in files)
            return made

        return store_and_remove

    # --- blame ----------------------------------------------------------------------------

    def strike(self, index: int) -> bool:
        """Notes that the engine crashed with this row in company; True makes it a suspect."""
        self._strikes[index] += 1
        return self._strikes[index] >= STRIKES_BEFORE_SOLO

    def solo_crash(self, index: int) -> bool:
        """Notes that the engine crashed on this row alone; True means the row is to blame."""
        self._strikes[index] = max(self._strikes[index], STRIKES_BEFORE_SOLO) + 1
        return self._strikes[index] >= STRIKES_BEFORE_SOLO + SOLO_CRASHES

    def clear(self, index: int) -> None:
        """The culprit of a crash was found elsewhere."""
        self._strikes.pop(index, None)

    # --- ends -----------------------------------------------------------------------------

    def cut(self) -> None:
        """Ends every unfinished row because the job was asked to stop; finished ones are kept."""
        self.cut_short = True
        if self.is_batch:
            error = stopped_error(self.stop_reason)
            for index in sorted(self.unfinished):
                self.fail_row(index, error)

    def end_slice(self, store: Store) -> SliceEnd:
        """Stores what there is and says how the slice ended. Blocks on the store."""
        self.store_files(store)
        return SliceEnd(
            self.held,
            ShardState.CANCELLED if self.cut_short else ShardState.SUCCEEDED,
            store_lines(store, self.claim, "output.jsonl", self._output),
            store_lines(store, self.claim, "errors.jsonl", self._errors),
            self.completed,
            self.failed,
            [consumed.line(endpoint, model) for (endpoint, model), consumed in self._usage.items()],
            self._artifacts,
        )

    def end_generation(self) -> GenerationEnd:
        """How the single generation, or the step, ended; its files are stored."""
        match self._single:
            case None:
                return GenerationEnd(self.held, ShardState.CANCELLED, _digest(b"cancelled"))
            case RowError(code, message):
                return self.failed_end(code, message)
            case RowResult() as result if result.status < HTTP_ERROR:
                return GenerationEnd(
                    self.held,
                    ShardState.SUCCEEDED,
                    _digest(result.body),
                    result=result.body.decode(),
                    input_tokens=result.input_tokens,
                    output_tokens=result.output_tokens,
                    artifacts=self._artifacts,
                    compute_seconds=result.compute_seconds,
                )
            case RowResult() as result:
                error = json.loads(result.body)["error"]
                return self.failed_end(error.get("code"), error.get("message"), error.get("param"))

    def failed_end(self, code: object, message: object, param: object = None) -> GenerationEnd:
        """The single generation failed, for a reason that may be in any engine's words."""
        return GenerationEnd(
            self.held,
            ShardState.FAILED,
            _digest(json.dumps([code, message, param]).encode()),
            error_code=_storable(code) or "engine_error",
            error_message=_storable(message) or "",
            error_param=_storable(param),
        )


def _storable(value: object) -> str | None:
    """Postgres has no way to keep a NUL or half a surrogate pair in text."""
    if value is None:
        return None
    return str(value).replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
