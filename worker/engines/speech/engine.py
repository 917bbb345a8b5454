"""The engine of ``/v1/audio/speech``.

A row is cut into sentences. Several threads speak sentences and encode finished rows at the same
time; a step hands out work until every thread has some, waits for one piece to be done, and puts
it into its place. So a short row never waits for a long one, and a cancel takes effect within a
sentence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from shared.errors import InvalidRequest, PressrunError
from worker.engines.base import OnProgress
from worker.engines.protocol import Load, Row, RowProgress, RowResult
from worker.engines.responses import out_of_memory, refusal
from worker.engines.sounds import stretch
from worker.engines.speech.base import Samples, SpeechModel, Unspeakable
from worker.engines.speech.joining import trimmed
from worker.engines.speech.loading import cpu_threads, load_model, read_speech_settings
from worker.engines.speech.mastering import Mastered, Mastering
from worker.engines.speech.reading import Reader
from worker.engines.speech.results import progress_of, provenance_of, result_of
from worker.engines.speech.rows import SpeechRow
from worker.engines.speech.settings import SpeechSettings

Place = tuple[SpeechRow, int]
"""A row and the number of one of its pieces."""
Task = tuple[str, list[Place]]


class SpeechEngine:
    """An ``Engine`` that ``ReportsProgress``."""

    def __init__(
        self,
        name: str,
        model: SpeechModel,
        settings: SpeechSettings,
        *,
        spool: Path,
        public_url: str,
        threads: int,
    ) -> None:
        self._name = name
        self._model = model
        self._settings = settings
        self._reader = Reader(model, settings, spool)
        self._public_url = public_url
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="speech")
        self._waiting: deque[SpeechRow] = deque()
        self._turns: deque[SpeechRow] = deque()
        self._tasks: dict[Future[Any], Task] = {}

    @property
    def capacity(self) -> int:
        return 4 * self._settings.rows

    @property
    def resident_bytes(self) -> int:
        return self._model.resident_bytes

    @property
    def detail(self) -> dict[str, Any]:
        return {
            **self._model.detail,
            "fingerprint": self._model.fingerprint,
            "scheduler": "sentences_in_turns",
            "threads": self._threads,
            "sample_rate": self._model.rate,
            "voices": [voice.id for voice in self._model.voices],
        }

    @property
    def busy(self) -> bool:
        return bool(self._turns or self._waiting or self._tasks)

    @property
    def active_rows(self) -> int:
        return len(self._turns)

    @property
    def waiting_rows(self) -> int:
        return len(self._waiting)

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        """Queues a row, or answers at once with status 400."""
        try:
            self._waiting.append(self._reader.read(shard, epoch, row))
        except PressrunError as error:
            return refusal(
                shard, epoch, row.index, code=error.code, message=error.message, param=error.param
            )
        return None

    def cancel(self, shard: int, epoch: int) -> None:
        for row in [*self._turns, *self._waiting]:
            if (row.shard, row.epoch) == (shard, epoch):
                self._drop(row)
        self._waiting = deque(row for row in self._waiting if not row.dropped)

    def step(self) -> list[RowResult]:
        """Hands out work, waits until a piece of it is done, and returns the finished rows."""
        while len(self._turns) < self._settings.rows and self._waiting:
            self._turns.append(self._waiting.popleft())
        while len(self._tasks) < self._threads and self._hand_out():
            pass
        if not self._tasks:
            return []
        done, _ = wait(self._tasks, return_when=FIRST_COMPLETED)
        return [result for future in done for result in self._collect(future)]

    def progress(self) -> list[RowProgress]:
        """Sentences spoken, of all; encoding is one more step."""
        return [report for row in self._turns for report in progress_of(row)]

    # --- work ---------------------------------------------------------------------------------

    def _hand_out(self) -> bool:
        """Starts one task: encoding before speaking, rows in turns. False: there is none."""
        for row in self._turns:
            if row.all_spoken and not row.in_flight:
                self._start("encode", [(row, 0)], self._encode, row)
                return True
        speaking = sum(kind == "speak" for kind, _ in self._tasks.values())
        places = self._next_places() if speaking < self._model.lanes else []
        if places:
            self._start("speak", places, self._speak, places)
        return bool(places)

    def _next_places(self) -> list[Place]:
        """The next pieces of the rows, one of each in turn."""
        places: list[Place] = []
        idle = 0
        while len(places) < self._model.together and idle < len(self._turns):
            row = self._turns[0]
            self._turns.rotate(-1)
            if row.asked == len(row.pieces):
                idle += 1
                continue
            idle = 0
            places.append((row, row.asked))
            row.asked += 1
        return places

    def _start(self, kind: str, places: list[Place], work: Callable[..., Any], *given: Any) -> None:
        for row, _ in places:
            row.in_flight += 1
        self._tasks[self._pool.submit(work, *given)] = (kind, places)

    def _speak(self, places: Sequence[Place]) -> list[Samples]:
        """In a thread: the trimmed sounds of the pieces, at the pace that was asked for."""
        sounds = self._model.speak([row.pieces[index].utterance for row, index in places])
        rate = self._model.rate
        return [
            trimmed(stretch(sound, rate, row.spec.speed / row.pieces[index].utterance.speed), rate)
            for sound, (row, index) in zip(sounds, places, strict=True)
        ]

    def _encode(self, row: SpeechRow) -> Mastered | None:
        """In a thread: the next seconds of the row's file."""
        if row.mastering is None:
            row.mastering = Mastering(row, provenance_of(row, self._name, self._model.fingerprint))
        return row.mastering.proceed()

    # --- results ------------------------------------------------------------------------------

    def _collect(self, future: Future[Any]) -> Iterator[RowResult]:
        kind, places = self._tasks.pop(future)
        for row, _ in places:
            row.in_flight -= 1
            if row.dropped and not row.in_flight:
                row.close()
        rows = [row for row in dict.fromkeys(row for row, _ in places) if not row.dropped]
        try:
            outcome = future.result()
        except Unspeakable as error:
            yield from (self._refuse(row, str(error)) for row in rows)
            return
        except Exception as error:
            if type(error).__name__ not in ("MemoryError", "OutOfMemoryError"):
                raise
            yield from (self._out_of_memory(row) for row in rows)
            return
        if kind == "speak":
            for (row, index), samples in zip(places, outcome, strict=True):
                if not row.dropped:
                    row.add(index, samples)
            yield from (
                self._refuse(row, "this model has no sound for any of the text")
                for row in rows
                if row.all_spoken and row.silent
            )
        elif outcome is not None:
            yield from (self._result(row, outcome) for row in rows)

    def _drop(self, row: SpeechRow) -> None:
        row.dropped = True
        if row in self._turns:
            self._turns.remove(row)
        if not row.in_flight:
            row.close()

    def _refuse(self, row: SpeechRow, message: str) -> RowResult:
        self._drop(row)
        return refusal(
            row.shard,
            row.epoch,
            row.row.index,
            code=InvalidRequest.code,
            message=message,
            param="input",
        )

    def _out_of_memory(self, row: SpeechRow) -> RowResult:
        self._drop(row)
        message = "a sentence does not fit the memory of this machine"
        return out_of_memory(row.shard, row.epoch, row.row.index, message)

    def _result(self, row: SpeechRow, mastered: Mastered) -> RowResult:
        row.delivered = True
        self._drop(row)
        return result_of(row, mastered, model=self._name, public_url=self._public_url)


def create(load: Load, progress: OnProgress) -> SpeechEngine:
    """Loads a speech model: ``hibari``, or a directory or hub id of transformers.

    Raises EngineFailed ``bad_settings``, ``model_load_failed`` or ``gpl_phonemizer_needed``.
    """
    settings = read_speech_settings(load)
    threads = settings.threads or cpu_threads()
    model = load_model(load.source, settings, threads, progress)
    progress(1.0, "ready")
    return SpeechEngine(
        load.model,
        model,
        settings,
        spool=Path(load.spool),
        public_url=load.public_url,
        threads=threads,
    )
